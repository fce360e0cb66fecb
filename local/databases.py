"""``python -m local.databases user catalog ...``: create each service's database and bring it up to date.

One process for all, as it would otherwise import Alembic once for each.
"""

from __future__ import annotations

import os
import sys

import psycopg
from psycopg import sql

from local.home import CHECKOUT


def create_missing(admin_url: str, names: list[str]) -> None:
    """Create the databases that do not exist yet."""
    with psycopg.connect(admin_url, autocommit=True) as connection:
        existing = {row[0] for row in connection.execute("SELECT datname FROM pg_database").fetchall()}
        for name in names:
            if name not in existing:
                connection.execute(sql.SQL("CREATE DATABASE {} TEMPLATE template0").format(sql.Identifier(name)))


def main(names: list[str]) -> None:
    create_missing(os.environ["MARQUEE_ADMIN_DATABASE_URL"], names)
    from services.kit.migrations import migrate

    for name in names:
        if (CHECKOUT / "services" / name / "migrations").is_dir():
            migrate(name, os.environ[f"MARQUEE_{name.upper()}_DATABASE_URL"])


if __name__ == "__main__":
    main(sys.argv[1:])
