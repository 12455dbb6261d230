"""Refusal openings, mined from sampled responses."""

from __future__ import annotations

from demur.optimization.openings import Sampled, mine_openings


def sampled(*ids: int, refused: bool, times: int = 1) -> list[Sampled]:
    return [Sampled(ids, refused)] * times


def test_the_shortest_pure_beginning_of_a_refusal_is_its_opening() -> None:
    samples = [
        *sampled(1, 2, 3, refused=True, times=40),
        *sampled(1, 2, 4, refused=True, times=20),
        *sampled(1, 5, 6, refused=False, times=30),
        *sampled(7, 8, 9, refused=True, times=30),
        *sampled(5, 5, 5, refused=False, times=60),
    ]
    found = mine_openings(samples, most=8, tokens=3)
    # Half of what begins with 1 answers, all that begins with 1 2 refuses.
    assert found.ids == ((1, 2), (7,))
    assert found.coverage == 1
    assert found.false == 0


def test_no_opening_begins_another() -> None:
    samples = [
        *sampled(1, refused=True, times=3),  # ended after one token
        *sampled(1, 2, 3, refused=True, times=10),
        *sampled(1, 4, 5, refused=False, times=6),
    ]
    found = mine_openings(samples, most=8, tokens=3)
    for one in found.ids:
        for other in found.ids:
            assert one == other or other[: len(one)] != one
    assert found.coverage == 1


def test_what_was_seen_once_or_twice_is_not_called_pure() -> None:
    samples = [
        *sampled(1, 2, 3, refused=True, times=50),
        *sampled(9, 9, 9, refused=True),
        *sampled(4, 4, 4, refused=False, times=100),
    ]
    assert mine_openings(samples, most=8, tokens=3).ids == ((1,),)
    few = [*sampled(1, 2, 3, refused=True, times=2), *sampled(4, 4, 4, refused=False, times=4)]
    assert mine_openings(few, most=8, tokens=3).ids == ((1, 2, 3),)


def test_a_beginning_that_mostly_answers_is_left_out() -> None:
    samples = [
        *sampled(1, 2, 3, refused=True, times=30),
        *sampled(6, 6, 6, refused=True, times=4),
        *sampled(6, 6, 6, refused=False, times=20),
    ]
    found = mine_openings(samples, most=8, tokens=3)
    assert found.ids == ((1,),)
    assert found.coverage == 30 / 34
    assert found.false == 0


def test_the_most_frequent_openings_are_kept_in_an_order_that_repeats() -> None:
    samples = [
        *sampled(3, refused=True, times=30),
        *sampled(2, refused=True, times=40),
        *sampled(1, refused=True, times=30),
        *sampled(8, refused=False, times=100),
    ]
    assert mine_openings(samples, most=2, tokens=1).ids == ((2,), (1,))
    assert mine_openings(samples[::-1], most=3, tokens=1).ids == ((2,), (1,), (3,))


def test_responses_without_a_refusal_have_no_opening() -> None:
    found = mine_openings(sampled(1, 2, refused=False, times=5), most=4, tokens=2)
    assert found.ids == ()
    assert mine_openings([], most=4, tokens=2).ids == ()
