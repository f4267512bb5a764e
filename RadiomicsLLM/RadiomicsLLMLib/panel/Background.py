"""Work in steps: what touches the scene stays on the main thread, what takes long goes to another one."""

from __future__ import annotations

from collections.abc import Callable, Generator
from dataclasses import dataclass
from typing import Any, Generic, TypeVar, cast

Result = TypeVar("Result")


@dataclass(frozen=True)
class Background(Generic[Result]):
    """A step that takes long, and touches neither the scene nor a widget.

    ``yield from`` it: its value, or its exception, comes back there.
    """

    sentence: str
    """What is happening, for the user."""
    function: Callable[[], Result]
    fraction: float = 0.0
    """How much of the whole was done before it, 0..1."""
    progress: Callable[[], tuple[str, float]] | None = None
    """Asked now and then, on the main thread, while it goes on: what is happening by now, and how much is done."""

    def __iter__(self) -> Generator[Background[Any], Any, Result]:
        """The step itself, for whoever runs it; what is sent in return is its value."""
        return cast(Result, (yield self))


def pauseFor(sentence: str, fraction: float = 0.0) -> Callable[[], Background[None]]:
    """Makes steps that do nothing: between two pieces of work on the main thread they let Slicer go on."""
    return lambda: Background(sentence, lambda: None, fraction)


Steps = Generator[Background[Any], Any, Result]
"""What runs between its steps touches the scene. Each step's value is of a type of its own, so what is sent is any."""


def runHere(steps: Steps[Result]) -> Result:
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
        return cast(Result, end.value)
