"""Keeping films."""

from __future__ import annotations

from dataclasses import replace
from uuid import uuid4

from marquee.catalog import v1 as catalog_v1
from services.catalog.announcements import changed
from services.catalog.domain import masks
from services.catalog.domain.errors import Retired, missing, require_version
from services.catalog.domain.titles import MOVIE_FIELDS, Movie, TitleState, state_from
from services.catalog.messages.titles import movie_message, movie_of
from services.catalog.messages.values import take_fields, uuid_of
from services.catalog.store import titles
from services.catalog.store.page import Page
from services.catalog.usecases.desk import LOCK, Change, Desk, pick
from services.catalog.usecases.reading import Where
from services.catalog.usecases.renaming import announce_shows
from services.kit.caches import MOVIE
from services.kit.call import UserId
from services.kit.idempotency import once
from services.kit.outbox import append


async def create_movie(request: catalog_v1.CreateMovieRequest, *, by: UserId, desk: Desk) -> catalog_v1.Movie:
    """Add a film.

    Raises:
        InvalidArgument: names the field below ``movie``.
        RequestIdReused
    """
    wish = movie_of(request.movie, "movie")
    async with desk.change() as change:

        async def effect() -> catalog_v1.Movie:
            movie = replace(wish, movie_id=uuid4(), version=1)
            await titles.add_movie(change.connection, movie)
            return await _announce_movie(change, movie)

        return await once(change.connection, caller=by, request=request, answer_type=catalog_v1.Movie, effect=effect)


async def update_movie(request: catalog_v1.UpdateMovieRequest, *, by: UserId, desk: Desk) -> catalog_v1.Movie:
    """Change the fields that the mask names.

    Raises:
        InvalidArgument: names ``update_mask`` or the field below ``movie``.
        NotFound, Retired, Conflict, RequestIdReused
    """
    movie_id = uuid_of(request.movie.movie_id, "movie.movie_id")
    unset = () if request.movie.state else ("state",)
    fields = masks.chosen(request.update_mask.paths, MOVIE_FIELDS, "movie", unset=unset)
    if "state" in fields:
        state_from(request.movie.state, "movie.state")
    async with desk.change() as change:

        async def effect() -> catalog_v1.Movie:
            present = await titles.find_movie(change.connection, movie_id, lock=LOCK)
            if present is None:
                raise missing("movie", movie_id)
            if present.state is TitleState.RETIRED:
                raise Retired("movie", movie_id)
            require_version(request.movie.version, present.version)
            # What the mask leaves out is read as it is, so that only what is asked for can be wrong.
            full = movie_message(present)
            take_fields(full, request.movie, fields)
            wish = movie_of(full, "movie")
            movie = replace(present, **pick(wish, fields), version=present.version + 1)
            await titles.save_movie(change.connection, movie)
            if movie.title != present.title:
                await announce_shows(change, now=desk.clock(), title_id=movie_id)
            return await _announce_movie(change, movie)

        return await once(change.connection, caller=by, request=request, answer_type=catalog_v1.Movie, effect=effect)


async def retire_movie(request: catalog_v1.RetireMovieRequest, *, by: UserId, desk: Desk) -> catalog_v1.Movie:
    """Take a film off the lists. Its shows stay; retiring again answers it as it is.

    Raises:
        NotFound, RequestIdReused
    """
    movie_id = uuid_of(request.movie_id, "movie_id")
    async with desk.change() as change:

        async def effect() -> catalog_v1.Movie:
            present = await titles.find_movie(change.connection, movie_id, lock=LOCK)
            if present is None:
                raise missing("movie", movie_id)
            if present.state is TitleState.RETIRED:
                return movie_message(present)
            movie = replace(present, state=TitleState.RETIRED, version=present.version + 1)
            await titles.save_movie(change.connection, movie)
            return await _announce_movie(change, movie)

        return await once(change.connection, caller=by, request=request, answer_type=catalog_v1.Movie, effect=effect)


async def list_all_movies(state: TitleState | None, where: Where, *, desk: Desk) -> Page[Movie]:
    """Films of any state, the last created first."""
    async with desk.engine.connect() as connection:
        return await titles.list_all_movies(connection, state, after=where.after, size=where.size)


async def _announce_movie(change: Change, movie: Movie) -> catalog_v1.Movie:
    message = movie_message(movie)
    change.makes_stale(MOVIE, [movie.movie_id])
    await append(change.connection, [changed(message)])
    return message
