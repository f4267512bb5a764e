"""What can be measured, by name. A subject is a module with a function `comparisons`.

``python -m benchmarks.click_to_result`` measures from a click in Slicer to the report: it needs the module's harness.
"""

from __future__ import annotations

import importlib
from collections.abc import Callable, Iterator, Sequence
from pathlib import Path
from typing import TYPE_CHECKING

from radllm_backend.errors import RadllmError

if TYPE_CHECKING:  # the names stand in the help of the command, which does not wait for pydantic
    from benchmarks.comparison import Comparison, Tell

AGAINST_RELEASE = ("release", "demo")
"""Are compared with a release, from its checkout."""
SUBJECTS = ("decoding", "extraction", "scoring", "training", "start-up", "batch", "busy", *AGAINST_RELEASE)
"""In the order of a lesion's way."""

Measure = Callable[..., Iterator["Comparison"]]
"""Rounds, a folder for generated cases, who is told what is measured now, and the release's checkout where needed."""


def measure(
    subjects: Sequence[str], runs: int, work: Path, tell: Tell, release: Path | None = None
) -> Iterator[Comparison]:
    """All comparisons of these subjects, one after the other.

    Args:
        release: the checkout of a release, for the subjects that are compared with one.

    Raises:
        RadllmError: an unknown subject, no round, no release where one is needed, or a package that a subject needs
            is missing.
    """
    unknown = [name for name in subjects if name not in SUBJECTS]
    if unknown:
        raise RadllmError(f"There is no benchmark '{unknown[0][:40]}': use {', '.join(SUBJECTS)}.")
    if runs < 1:
        raise RadllmError(f"--runs is {runs}: use 1 or more.")
    for name in subjects:
        if name in AGAINST_RELEASE and release is None:
            raise RadllmError(f"The benchmark {name} compares with a release: name its checkout with --release.")
    for name in subjects:
        more = (release,) if name in AGAINST_RELEASE else ()
        yield from _of(name)(runs, work, tell, *more)


def _of(name: str) -> Measure:
    found: Measure = importlib.import_module(f"{__package__}.{name.replace('-', '_')}").comparisons
    return found
