"""Work in steps: what touches the scene stays on the main thread, what takes long goes to another one."""

from __future__ import annotations

from collections.abc import Callable, Generator
from dataclasses import dataclass
from typing import Any


@dataclass(frozen=True)
class Background:
    """A step that takes long, and touches neither the scene nor a widget."""

    sentence: str
    """What is happening, for the user."""
    function: Callable[[], Any]
    fraction: float = 0.0
    """How much of the whole was done before it, 0..1."""


Steps = Generator[Background, Any, Any]
"""What runs between its steps touches the scene; each step's value, or its exception, comes back where it was yielded.
"""


def runHere(steps: Steps) -> Any:
    """Run all steps on this thread, one after the other: for scripts. Returns what the steps return."""
    try:
        step = next(steps)
        while True:
            try:
                answer = step.function()
            except Exception as error:
                step = steps.throw(error)
            else:
                step = steps.send(answer)
    except StopIteration as end:
        return end.value
