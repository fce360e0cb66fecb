"""New signing keys, without an error and without a stream cut."""

from __future__ import annotations

import asyncio
import time

import grpc
from edge_backend import Context, message_class
from edge_calls import rest
from edge_fixtures import RPCS, World, bearer, world
from google.protobuf.message import Message

__all__ = ["world"]


async def test_keys_rotate_under_load_without_an_error(world: World) -> None:
    """Publish the next key, sign with it, take the old one away: each step is one render of jwt.json alone."""
    keys, signing, failures, calls = world.edge.keys, 0, [], 0
    stop = asyncio.Event()

    async def knock(number: int) -> None:
        nonlocal calls
        while not stop.is_set():
            headers = {"x-forwarded-for": world.address()}
            reply = await rest(
                RPCS["GetProfile"],
                http=world.http,
                headers=headers | bearer(keys.token(f"u{number}-{calls}", key=signing)),
            )
            calls += 1
            if not reply.ok:
                failures.append(reply)

    stream = world.channel.unary_stream(RPCS["WatchSeats"].path)(b"")
    world.backend.answers[RPCS["WatchSeats"].path] = _slowly
    knocking = [asyncio.create_task(knock(number)) for number in range(4)]
    await asyncio.sleep(0.3)
    keys.add()
    keys.publish()
    assert world.edge.render_again() == ("jwt.json",)
    await asyncio.sleep(0.7)
    signing = 1
    await asyncio.sleep(0.5)
    old = bearer(keys.token("late", key=0))
    published = keys.private[0]
    keys.private[0] = keys.private[1]
    keys.publish()
    keys.private[0] = published
    world.edge.render_again()
    await asyncio.sleep(0.7)
    stop.set()
    await asyncio.gather(*knocking)
    assert failures == []
    assert calls > 200
    assert (await world.call("rest", RPCS["GetProfile"], old)).reason == "UNAUTHENTICATED"
    assert len([message async for message in stream]) == 3, "the stream went on through both rotations"
    assert await stream.code() is grpc.StatusCode.OK


async def _slowly(_: Message, __: Context) -> Message:
    await asyncio.sleep(1)
    return message_class(RPCS["WatchSeats"].response)()


async def test_a_render_without_news_touches_nothing(world: World) -> None:
    assert world.edge.render_again() == ()


async def test_limits_are_remembered_through_a_rotation(world: World) -> None:
    caller = world.signed_in("frank")
    for _ in range(5):
        assert (await world.call("rest", RPCS["InitiatePayment"], caller)).ok
    world.edge.keys.add()
    world.edge.keys.publish()
    world.edge.render_again()
    deadline = time.monotonic() + 5
    while not (await world.call("rest", RPCS["GetProfile"], bearer(world.edge.keys.token("grace")))).ok:
        assert time.monotonic() < deadline, "the new key was not taken"
        await asyncio.sleep(0.05)
    assert (await world.call("rest", RPCS["InitiatePayment"], caller)).reason == "RATE_LIMITED"


async def test_a_broken_file_is_refused_and_the_old_keys_stay(world: World) -> None:
    target = world.edge.folder / "jwt.json"
    good = target.read_text()
    draft = target.with_suffix(".draft")
    draft.write_text("{broken")
    draft.replace(target)
    await asyncio.sleep(0.5)
    assert (await world.call("rest", RPCS["GetProfile"], world.signed_in())).ok
    draft.write_text(good)
    draft.replace(target)
