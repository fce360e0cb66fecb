"""Archived partitions into files: gzipped CSV with a header, which COPY reads back.

A table is dropped only when its file is complete: on disk, read again, and with as many rows as the table has. Until
then the file is called ``.unfinished``, and whoever exports next begins it anew. No file is written over: latecomers of
days that were exported before get a second one.
"""

from __future__ import annotations

import gzip
import hashlib
import itertools
import os
from pathlib import Path

import structlog

from services.kit.database import Connection
from services.kit.partitions import ARCHIVE, Partitioned

log = structlog.get_logger()
BLOCK = 1 << 20

ARCHIVED = """
    SELECT tablename
    FROM pg_tables
    WHERE schemaname = %s
      AND tablename ~ %s
    ORDER BY tablename
"""


class FileDiffers(Exception):
    """What was written does not read back as PostgreSQL sent it, or rows were added meanwhile. Nothing was dropped."""


async def archived(connection: Connection, each: Partitioned) -> list[str]:
    """The archived partitions of a table, the oldest first."""
    cursor = await connection.execute(ARCHIVED, (ARCHIVE, f"^{each.table}_[0-9]{{8}}$"))
    return [row[0] for row in await cursor.fetchall()]


async def export(connection: Connection, part: str, folder: Path) -> Path:
    """Write an archived partition to ``<folder>/<part>.csv.gz`` and drop it. Answers the file.

    Raises:
        FileDiffers: the file is not what the table is.
        OSError: the folder cannot be written, or the disk is full.
    """
    unfinished = folder / f"{part}.csv.gz.unfinished"
    written = hashlib.sha256()
    await connection.execute("SET synchronize_seqscans = off")  # the same rows in the same order each time
    async with connection.cursor() as cursor:
        with unfinished.open("wb") as raw, gzip.GzipFile("", "wb", fileobj=raw, mtime=0) as zipped:
            async with cursor.copy(f"COPY {ARCHIVE}.{part} TO STDOUT (FORMAT csv, HEADER)") as copy:
                async for block in copy:
                    zipped.write(block)
                    written.update(block)
        rows = cursor.rowcount
    _to_disk(unfinished)
    if _hash(unfinished) != written.digest():
        raise FileDiffers(f"{unfinished} does not read back as it was written; is the disk sound?")
    file = _free_or_same(folder, part, written.digest())
    unfinished.rename(file)
    _to_disk(folder)
    async with connection.transaction():
        await connection.execute(f"LOCK TABLE {ARCHIVE}.{part} IN ACCESS EXCLUSIVE MODE")
        row = await (await connection.execute(f"SELECT count(*) FROM {ARCHIVE}.{part}")).fetchone()
        if row != (rows,):
            raise FileDiffers(f"{ARCHIVE}.{part} was changed while it was written to {file}; export it again")
        await connection.execute(f"DROP TABLE {ARCHIVE}.{part}")
    log.info("partition_exported", partition=part, rows=rows, file=str(file))
    return file


def _free_or_same(folder: Path, part: str, content: bytes) -> Path:
    """Where nothing is yet, or what a predecessor wrote who died before the table was dropped."""
    for number in itertools.count(1):
        file = folder / (f"{part}.csv.gz" if number == 1 else f"{part}-{number}.csv.gz")
        if not file.exists() or _hash(file) == content:
            break
    return file


def _hash(file: Path) -> bytes:
    read = hashlib.sha256()
    with gzip.open(file) as zipped:
        while block := zipped.read(BLOCK):
            read.update(block)
    return read.digest()


def _to_disk(path: Path) -> None:
    opened = os.open(path, os.O_RDONLY)
    try:
        os.fsync(opened)
    finally:
        os.close(opened)
