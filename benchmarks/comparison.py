"""Two ways to the same result, run in turn, and how many times as much time or memory the first one takes."""

from __future__ import annotations

import os
import platform
import statistics
import time
from collections.abc import Callable, Sequence
from functools import partial
from pathlib import Path
from typing import TypeVar

from radllm_backend.records import Record

QUICK = "RADLLM_BENCH_QUICK"
"""Environment variable: any value makes the generated cases small, to try a benchmark itself."""
Tell = Callable[[str], None]
"""Told what is measured now."""

T = TypeVar("T")


class Comparison(Record):
    """What both ways took, round by round, and what came of it."""

    subject: str
    """What was measured, such as ``extraction``."""
    case: str
    """On what, in words that a reader of the documentation understands."""
    usual: str
    """The way that is compared with, in words."""
    usual_values: tuple[float, ...]
    values: tuple[float, ...]
    unit: str = "s"
    wanted: float | None = None
    """The ratio aimed at; None where none was set."""
    note: str = ""
    """What bounds it, or how far the results of both ways differ."""
    loads: tuple[float, ...] = ()
    """The machine's load average of the last minute at the end of each round; empty where nobody noted it."""

    @property
    def ratios(self) -> tuple[float, ...]:
        """The usual way's value divided by ours, round by round."""
        return tuple(usual / ours for usual, ours in zip(self.usual_values, self.values, strict=True))

    @property
    def ratio(self) -> float:
        """The median of the rounds."""
        return statistics.median(self.ratios)

    @property
    def is_reached(self) -> bool | None:
        return None if self.wanted is None else self.ratio >= self.wanted


def compare(
    subject: str,
    case: str,
    usual: tuple[str, Callable[[], object]],
    ours: Callable[[], object],
    *,
    runs: int = 5,
    wanted: float | None = None,
    note: str = "",
    clock: Callable[[], float] = time.perf_counter,
) -> Comparison:
    """Run the usual way and ours in turn, each once before it counts.

    Args:
        usual: how it is called, and the work itself.
        runs: rounds that count, each with both ways.
        clock: seconds; `time.process_time` where both ways run in this process and other work shares the machine.
    """
    called, theirs = usual
    rounds, loads = in_turn((partial(_seconds, theirs, clock), partial(_seconds, ours, clock)), runs, warm_up=True)
    slow, fast = zip(*rounds, strict=True)
    return Comparison(
        subject=subject,
        case=case,
        usual=called,
        usual_values=slow,
        values=fast,
        wanted=wanted,
        note=note,
        loads=loads,
    )


def in_turn(
    ways: Sequence[Callable[[], T]], runs: int, *, warm_up: bool = False
) -> tuple[list[tuple[T, ...]], tuple[float, ...]]:
    """What each way gives in each round, and the load average at the end of each round, where the system knows it.

    Args:
        warm_up: one more round goes before, and does not count.
    """
    rounds, loads = [], []
    for _ in range(runs + warm_up):
        rounds.append(tuple(way() for way in ways))
        if hasattr(os, "getloadavg"):
            loads.append(round(os.getloadavg()[0], 2))
    return rounds[warm_up:], tuple(loads[warm_up:])


def _seconds(work: Callable[[], object], clock: Callable[[], float]) -> float:
    begun = clock()
    work()
    return max(clock() - begun, 1e-9)


def table(comparisons: Sequence[Comparison]) -> str:
    """A Markdown table: one line a comparison, with the medians, and the median, lowest and highest ratio."""
    lines = [
        "| what | case | compared with | then | now | then / now (lowest to highest) | aimed at |",
        "| --- | --- | --- | --- | --- | --- | --- |",
    ]
    for one in comparisons:
        usual, ours = (f"{_digits(statistics.median(values))} {one.unit}" for values in (one.usual_values, one.values))
        aim = "" if one.wanted is None else f"{one.wanted:.3g} ({'reached' if one.is_reached else 'not reached'})"
        spread = f"**{one.ratio:.3g}** ({min(one.ratios):.3g} to {max(one.ratios):.3g})"
        lines.append(f"| {' | '.join((one.subject, one.case, one.usual, usual, ours, spread, aim))} |")
    notes = [f"- {one.subject}, {one.case}: {said}" for one in comparisons if (said := _said(one))]
    return "\n".join([*lines, *([""] if notes else []), *notes]) + "\n"


def _digits(value: float) -> str:
    return f"{value:.3g}" if value < 1000 else f"{value:.0f}"


def _said(one: Comparison) -> str:
    loads = f"load average {min(one.loads):.1f} to {max(one.loads):.1f}" if one.loads else ""
    return "; ".join(part for part in (one.note, loads) if part)


def machine() -> str:
    """The hardware and the versions that the figures hold for, in a line."""
    return f"{os.cpu_count()} cores, {_processor()}, Python {platform.python_version()}, {platform.system()}"


def _processor() -> str:
    try:
        lines = Path("/proc/cpuinfo").read_text().splitlines()
    except OSError:
        return platform.processor() or platform.machine()
    names = [line.partition(":")[2].strip() for line in lines if line.startswith("model name")]
    return names[0] if names else platform.machine()
