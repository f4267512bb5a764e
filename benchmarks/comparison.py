"""Two ways to the same result, run in turn in one process, and how many times faster the second one is."""

from __future__ import annotations

import os
import platform
import statistics
import time
from collections.abc import Callable, Sequence
from pathlib import Path

from radllm_backend.records import Record

QUICK = "RADLLM_BENCH_QUICK"
"""Environment variable: any value makes the generated cases small, to try a benchmark itself."""
Tell = Callable[[str], None]
"""Told what is measured now."""


class Comparison(Record):
    """Seconds of both ways, round by round, and what came of it."""

    subject: str
    """What was measured, such as ``extraction``."""
    case: str
    """On what, in words that a reader of the documentation understands."""
    usual: str
    """The way that is compared with, in words."""
    usual_seconds: tuple[float, ...]
    seconds: tuple[float, ...]
    wanted: float | None = None
    """The ratio aimed at; None where none was set."""
    note: str = ""
    """What bounds it, or how far the results of both ways differ."""

    @property
    def ratios(self) -> tuple[float, ...]:
        """How many times as fast as usual, round by round."""
        return tuple(slow / fast for slow, fast in zip(self.usual_seconds, self.seconds, strict=True))

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
    for work in (theirs, ours):
        work()
    rounds = [(_seconds(theirs, clock), _seconds(ours, clock)) for _ in range(runs)]
    slow, fast = zip(*rounds, strict=True)
    return Comparison(
        subject=subject, case=case, usual=called, usual_seconds=slow, seconds=fast, wanted=wanted, note=note
    )


def _seconds(work: Callable[[], object], clock: Callable[[], float]) -> float:
    begun = clock()
    work()
    return max(clock() - begun, 1e-9)


def table(comparisons: Sequence[Comparison]) -> str:
    """A Markdown table: one line a comparison, with median, lowest and highest ratio."""
    lines = [
        "| what | case | compared with | seconds then | seconds now | times as fast (lowest to highest) | aimed at |",
        "| --- | --- | --- | --- | --- | --- | --- |",
    ]
    for one in comparisons:
        usual, ours = statistics.median(one.usual_seconds), statistics.median(one.seconds)
        aim = "" if one.wanted is None else f"{one.wanted:g} ({'reached' if one.is_reached else 'not reached'})"
        spread = f"**{one.ratio:.1f}** ({min(one.ratios):.1f} to {max(one.ratios):.1f})"
        cells = (one.subject, one.case, one.usual, f"{usual:.3g}", f"{ours:.3g}", spread, aim)
        lines.append(f"| {' | '.join(cells)} |")
    notes = [f"- {one.subject}, {one.case}: {one.note}" for one in comparisons if one.note]
    return "\n".join([*lines, *([""] if notes else []), *notes]) + "\n"


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
