"""Two ways measured in turn, and the table that tells of it."""

import itertools

import pytest
from pydantic import ValidationError

from benchmarks.comparison import Comparison, compare, in_turn, table
from benchmarks.subjects import AGAINST_RELEASE, measure
from radllm_backend.errors import RadllmError


def measured(**more) -> Comparison:
    given = {"usual_values": (4.0, 6.0, 9.0), "values": (1.0, 2.0, 1.0), "wanted": 4.0}
    return Comparison(subject="extraction", case="a mammogram", usual="from files", **{**given, **more})


def test_the_ratio_is_the_median_of_the_rounds_and_not_of_the_seconds():
    assert measured().ratios == (4.0, 3.0, 9.0)
    assert measured().ratio == 4.0
    assert measured().is_reached
    assert not measured(wanted=4.1).is_reached
    assert measured(wanted=None).is_reached is None


def test_both_ways_take_turns_after_one_run_that_does_not_count():
    calls: list[str] = []
    ticks = itertools.count()
    found = compare(
        "x",
        "y",
        ("usual", lambda: calls.append("usual")),
        lambda: calls.append("ours"),
        runs=3,
        clock=lambda: next(ticks),
    )
    assert calls == ["usual", "ours"] * 4
    assert found.usual_values == found.values == (1, 1, 1)


def test_the_table_says_what_was_reached_and_what_was_not():
    text = table([measured(note="bounded by decoding"), measured(wanted=5.0), measured(wanted=None)])
    assert "| extraction | a mammogram | from files | 6 s | 1 s | **4** (3 to 9) | 4 (reached) |" in text
    assert "| 5 (not reached) |" in text
    assert text.endswith("- extraction, a mammogram: bounded by decoding\n")


def test_values_are_numbers():
    with pytest.raises(ValidationError):
        measured(values=(float("nan"), 1.0, 1.0))


def test_memory_has_its_own_unit_and_the_load_stands_below():
    values = {"usual_values": (4000.0, 6012.3, 9000.0), "values": (1000.0, 2000.0, 1000.0)}
    text = table([measured(unit="MB", wanted=1 / 0.6, loads=(0.5, 2.25, 1.0), **values)])
    assert "| 6012 MB | 1000 MB | **4** (3.01 to 9) | 1.67 (reached) |" in text
    assert text.endswith("- extraction, a mammogram: load average 0.5 to 2.2\n")


def test_a_round_to_warm_up_comes_before_the_others():
    numbers = itertools.count()
    rounds, loads = in_turn([lambda: next(numbers), lambda: -next(numbers)], 2, warm_up=True)
    assert rounds == [(2, -3), (4, -5)]
    assert len(loads) in (0, 2)


@pytest.mark.parametrize("subject", AGAINST_RELEASE)
def test_a_comparison_with_a_release_wants_its_checkout(tmp_path, subject):
    with pytest.raises(RadllmError, match=f"The benchmark {subject} compares with a release: name its checkout"):
        next(measure([subject], 1, tmp_path, print))
