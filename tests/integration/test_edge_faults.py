"""Bad input that the edge refuses itself: it names the field as services do, and repeats nothing of what was sent."""

from __future__ import annotations

import json
import random
import re
from collections.abc import AsyncIterator

import pytest
from edge_backend import refusing
from edge_calls import SOME_ID, Reply, reply_of
from edge_fixtures import RPCS, World, world

__all__ = ["world"]

OTHER_ID = "11111111-1111-4111-8111-111111111111"
LOGIN = "/api/v1/users/login"
CREATE_SHOW = "/api/v1/admin/shows"
UINT32 = "must be a whole number from 0 to 4294967295"
FORMATS = "must be one of FORMAT_2D, FORMAT_3D, FORMAT_IMAX, FORMAT_LIVE"
DELIVERIES = "must be one of TOKEN_DELIVERY_BODY, TOKEN_DELIVERY_COOKIE"
TIME = "must be a time with its zone from the years 1 to 9999, as 2026-11-22T10:00:00Z is"


@pytest.fixture(autouse=True)
async def no_script_fails(world: World) -> AsyncIterator[None]:
    world.backend.answers.clear()
    yield
    assert "script log" not in world.edge.log.read_text()


def refused_for(reply: Reply, field: str, rule: str) -> None:
    assert (reply.http_status, reply.code, reply.reason, reply.domain) == (400, 3, "INVALID_ARGUMENT", "marquee")
    assert (reply.message, reply.violations) == (f"{field}: {rule}", {field: rule})


# --- fields -----------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("query", "field", "rule"),
    [
        ("pageSize=many", "page_size", UINT32),
        ("pageSize=-1", "page_size", UINT32),
        ("pageSize=4294967296", "page_size", UINT32),
        ("pageSize=", "page_size", UINT32),
        ("page_size=%22", "page_size", UINT32),
        ("pageSize=%ff%fe", "page_size", UINT32),
        ("format=FORMAT_9D", "format", FORMATS),
        ("format=x%22%20for%20type%20TYPE_BOOL", "format", FORMATS),
        ("pageSize.x=1", "page_size", "has no fields of its own"),
        ("colour=red", "colour", "is not a parameter of this call"),
        ("a.b.c=red", "a", "is not a parameter of this call"),
    ],
)
async def test_a_bad_parameter_is_named(world: World, query: str, field: str, rule: str) -> None:
    refused_for(reply_of(await world.rest("GET", f"/api/v1/movies?{query}")), field, rule)


@pytest.mark.parametrize(
    ("path", "body", "field", "rule"),
    [
        (LOGIN, '{"email": 5}', "email", "must be a string"),
        (LOGIN, '{"email": true}', "email", "must be a string"),
        (LOGIN, '{"email": []}', "email", "must not be a list"),
        (LOGIN, '{"email": {}}', "email", "must not be an object"),
        (LOGIN, '{"tokenDelivery": "X"}', "token_delivery", DELIVERIES),
        (LOGIN, '{"token_delivery": 1.5}', "token_delivery", DELIVERIES),
        (LOGIN, '{"tokenDelivery": {}}', "token_delivery", "must not be an object"),
        (CREATE_SHOW, '{"show": 5}', "show", "must be an object"),
        (CREATE_SHOW, '{"show": []}', "show", "must not be a list"),
        (CREATE_SHOW, '{"show": {"startTime": "soon"}}', "show.start_time", TIME),
        (CREATE_SHOW, '{"show": {"startTime": 5}}', "show.start_time", TIME),
        (CREATE_SHOW, '{"show": {"startTime": [1]}}', "show.start_time", "must not be a list"),
        (CREATE_SHOW, '{"show": {"prices": [{}, {"category": []}]}}', "show.prices[1].category", "must not be a list"),
        (
            CREATE_SHOW,
            '{"show": {"prices": [{"price": {"units": "x"}}]}}',
            "show.prices[0].price.units",
            "must be a whole number of 64 bits",
        ),
        ("/api/v1/reservations", '{"seats": [1]}', "seats[0]", "must be a string"),
        ("/api/v1/reservations", '{"seats": [{}]}', "seats", "must not be an object"),
        # Lists that are right, or that nobody reads, stand before the one that is wrong.
        ("/api/v1/reservations", '{"x": [1], "y": {"requestId": []}, "seats": ["A1"], "showId": []}', "show_id", ""),
    ],
)
async def test_a_field_of_another_type_is_named(world: World, path: str, body: str, field: str, rule: str) -> None:
    reply = reply_of(await world.rest("POST", path, content=body, headers=world.signed_in()))
    refused_for(reply, field, rule or "must not be a list")


@pytest.mark.parametrize(
    ("body", "field", "rule"),
    [
        ('{"show": {"format": NaN}}', "show.format", "unexpected token"),
        (
            '{"show": {"prices": [{"category": 1e400}]}}',
            "show.prices[0].category",
            "number exceeds the range of double",
        ),
        ('{"requestId": "a", "show": {"movieId": -Infinity}}', "show.movie_id", "unable to parse number"),
        ('{"show": {"movieId": 0x12}}', "show.movie_id", "octal/hex numbers are not valid JSON values"),
        ('{"requestId": "\\ud800"}', "request_id", "missing low surrogate"),
        ('{"requestId": "\\ud800\\ud800"}', "request_id", "invalid low surrogate"),
        ('{"requestId": "\\u12"}', "request_id", "invalid escape sequence"),
        ('{"requestId" 1}', "request_id", "expected : between key:value pair"),
        ('{"requestId": "a" "show": {}}', "request_id", "expected , or } after key:value pair"),
        ('{"show": {"prices": [{} {}]}}', "show.prices", "expected , or ] after array value"),
        # What the transcoder takes although JSON does not, stands before what it does not take.
        ('{\'requestId\': \'a\', bare: 1, "x": [1,], "show": {"format": tru}}', "show.format", "unexpected token"),
        ('{"requestId": "a"', "request_id", "unexpected end of string. Expected , or } after key:value pair"),
        ('{"noSuchField": NaN}', "request", "unexpected token"),
        ("{}{}", "request", "parsing terminated before end of input"),
        ("\xef\xbb\xbf{}", "request", "expected a value"),
    ],
)
async def test_json_that_is_none_is_refused_where_it_breaks(world: World, body: str, field: str, rule: str) -> None:
    content = body.encode("latin-1")
    reply = reply_of(await world.rest("POST", CREATE_SHOW, content=content, headers=world.signed_in()))
    refused_for(reply, field, f"is not JSON: {rule}")


async def test_bytes_that_are_not_utf_8_are_refused_where_they_stand(world: World) -> None:
    content = b'{"requestId": "\xc3\xa9\xe2\x82\xac\xf0\x9f\x8e\xac", "show": {"movieId": "a\xff\xfe"}}'
    reply = reply_of(await world.rest("POST", CREATE_SHOW, content=content, headers=world.signed_in()))
    refused_for(reply, "show.movie_id", "is not JSON: encountered non UTF-8 code points")


@pytest.mark.parametrize("deep", ["[" * 200 + "]" * 200, '{"a":' * 200 + "1" + "}" * 200])
async def test_what_is_nested_too_deeply_is_named(world: World, deep: str) -> None:
    content = f'{{"show": {{"movieId": {deep}}}}}'
    reply = reply_of(await world.rest("POST", CREATE_SHOW, content=content, headers=world.signed_in()))
    assert reply.message.endswith(": is nested too deeply")
    assert list(reply.violations) == ["show.movie_id"]


@pytest.mark.parametrize("body", ["[]", '"word"', "17", "null"])
async def test_a_body_that_is_no_object_is_refused(world: World, body: str) -> None:
    refused_for(reply_of(await world.rest("POST", LOGIN, content=body)), "request", "must be a JSON object")


async def test_parameters_in_the_wrong_place_are_named(world: World) -> None:
    for query in (f"showId={OTHER_ID}", f"show%5Fid={OTHER_ID}"):
        reply = reply_of(await world.rest("GET", f"/api/v1/shows/{SOME_ID}?{query}"))
        refused_for(reply, "show_id", "is given by the path already, not to be given in the query")
    for query, field in (("email=a", "email"), ("%22=a", "query"), ("a" * 500, "a" * 100)):
        reply = reply_of(await world.rest("POST", f"{LOGIN}?{query}", content="{}"))
        refused_for(reply, field, "belongs into the body, not into the query")


async def test_it_has_the_shape_of_a_services_refusal(world: World) -> None:
    world.backend.answers[RPCS["Login"].path] = refusing(3, "INVALID_ARGUMENT", "email: must be a string", "email")
    of_service = (await world.rest("POST", LOGIN, content="{}")).json()
    of_edge = (await world.rest("POST", LOGIN, content='{"email": 5}')).json()
    assert (of_service["details"][0].pop("metadata"), of_edge["details"][0].pop("metadata")) == ({"seats": "C7"}, {})
    of_service["details"][1]["fieldViolations"][0]["description"] = "must be a string"
    assert of_edge == of_service


# --- hostile input ----------------------------------------------------------------------------------------------------

HOSTILE = (
    '", "code": 0, "x": "',
    '\\", "code": 0}',
    "a\r\nx-injected: 1\r\n\r\nb",
    "%s%n%d%%{}$(x)",
    "\u2028\u202e<script>alert(1)</script>",
    ": invalid value 1 for type TYPE_BOOL",
    "email: must be nice",
    "x.\n^",
    "\x00\x01\x1b[31m",
    "W" * 30_000,
    ' for type x" for type ' * 1_000,
    'The binding value a of the field b is conflicting with the value "' * 300,
)


@pytest.mark.parametrize("text", HOSTILE, ids=range(len(HOSTILE)))
async def test_nothing_that_was_sent_comes_back(world: World, text: str) -> None:
    bodies = [
        json.dumps({"tokenDelivery": text}).encode(),
        json.dumps({"email": {text: 1}}).encode(),
        json.dumps({text: [1], "email": [text]}).encode(),
        f'{{"email": "{text}'.encode(),
        f"{text} {{}}".encode(),
        json.dumps({"tokenDelivery": "x"}).encode().replace(b"x", text.encode() + b"\xff"),
    ]
    for body in bodies:
        response = await world.rest("POST", LOGIN, content=body)
        if response.status_code == 200:  # it was a good string somewhere
            continue
        assert "x-injected" not in response.headers
        assert len(response.content) < 1_000
        reply = reply_of(response)
        ((field, rule),) = reply.violations.items()
        assert field in ("token_delivery", "email", "request")
        refused_for(reply, field, rule)
        for word in ("WWW", "alert", "injected", "nice", "conflicting", "[31m"):
            assert word not in response.text


async def test_a_parameter_is_repeated_only_as_far_as_it_is_a_name(world: World) -> None:
    for name, told in (("%22%5C%0a<b>", "?22?5C?0a?3Cb?3E"), ("W" * 9_000, "W" * 100)):
        reply = reply_of(await world.rest("GET", f"/api/v1/movies?{name}=1"))
        refused_for(reply, told, "is not a parameter of this call")


async def test_whatever_the_body_the_answer_is_whole_and_names_a_field_of_the_call(world: World) -> None:
    chance = random.Random(7)
    show = {
        "movieId": SOME_ID,
        "startTime": "2026-11-22T10:00:00Z",
        "prices": [{"category": "A", "price": {"nanos": 1}}],
    }
    good = json.dumps({"requestId": SOME_ID, "show": {**show, "format": "FORMAT_2D"}}).encode()
    known = re.compile(
        r"request|request_id|show(\.(movie_id|start_time|format|prices(\[\d+\](\.(category|price(\.nanos)?))?)?))?"
    )
    refused = 0
    for _ in range(300):
        body = bytearray(good)
        for _ in range(chance.randrange(1, 4)):
            at = chance.randrange(len(body))
            body[at : at + chance.randrange(3)] = chance.choice(
                (
                    b"",
                    b"{",
                    b"}",
                    b"[",
                    b"]",
                    b'"',
                    b"'",
                    b",",
                    b":",
                    b"\\",
                    b"\xff",
                    b"0",
                    b"-",
                    b"null",
                    chance.randbytes(2),
                )
            )
        reply = reply_of(await world.rest("POST", CREATE_SHOW, content=bytes(body), headers=world.signed_in()))
        if not reply.ok:
            ((field, rule),) = reply.violations.items()
            refused_for(reply, field, rule)
            assert known.fullmatch(field), (field, bytes(body))
            refused += 1
    assert refused > 100
