"""The one-machine stack's PostgreSQL: its data, and the password that it was made with, come and go together."""

from __future__ import annotations

import shutil
from pathlib import Path

import pytest

from local import postgres
from local.home import Home
from local.trouble import Trouble


@pytest.fixture
def home(tmp_path: Path) -> Home:
    home = Home(tmp_path / "home")
    home.make()
    return home


def test_a_new_checkout_in_the_place_of_an_old_one_finds_the_password_of_roots_data(home: Home) -> None:
    try:
        postgres.make_cluster(home)
        made_with = postgres.password(home)
        assert (home.postgres / "password").stat().st_mode & 0o077 == 0
        shutil.rmtree(home.keys)
        home.make()
        assert postgres.password(home) == made_with
        assert made_with in postgres.url(home, 1, "booking")

        (home.postgres / "password").unlink()
        with pytest.raises(Trouble, match="make reset"):
            postgres.password(home)
        (home.keys / "postgres.password").write_text("older")
        assert postgres.password(home) == "older"
    finally:
        home.wipe()
