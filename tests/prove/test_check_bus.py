"""The deliveries are checked by something that does find what is wrong."""

from __future__ import annotations

from tests.prove.check_bus import Event, follow

ONE, TWO, THREE = (Event(number, "t", "k") for number in ("1", "2", "3"))
OTHER = Event("4", "t", "l")
ALL = [ONE, TWO, OTHER, THREE]


def test_each_event_once_and_in_order_is_right() -> None:
    found = follow(ALL, ALL, ALL)
    assert found.problems == []
    assert (found.written, found.deliveries, found.repeats, found.effects, found.keys) == (4, 4, 0, 4, 1)


def test_a_repeat_is_right_when_the_first_time_was_in_order() -> None:
    found = follow(ALL, [ONE, TWO, ONE, TWO, THREE, OTHER], ALL)
    assert found.problems == []
    assert found.repeats == 2


def test_keys_have_an_order_each() -> None:
    assert follow(ALL, [OTHER, ONE, TWO, THREE], [ONE, TWO, THREE, OTHER]).problems == []


def test_an_event_that_never_arrives_is_found() -> None:
    assert follow(ALL, [ONE, TWO, OTHER], ALL).problems == ["t 3 of k never arrived"]


def test_an_effect_that_is_missing_or_doubled_is_found() -> None:
    assert follow(ALL, ALL, [ONE, TWO, OTHER]).problems == ["t 3 of k had 0 effects"]
    assert follow(ALL, ALL, [*ALL, ONE]).problems == ["t 1 of k had 2 effects"]


def test_another_order_is_found() -> None:
    assert "arrived in another order" in follow(ALL, [TWO, ONE, THREE, OTHER], ALL).problems[0]
    assert "took effect in another order" in follow(ALL, ALL, [THREE, ONE, TWO, OTHER]).problems[0]
