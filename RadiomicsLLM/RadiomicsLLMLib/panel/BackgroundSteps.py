"""Programs run one after another beside the event loop, with a log, and can be cancelled."""

from __future__ import annotations

import logging
import threading
from collections import deque
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass

from slicer.i18n import tr as _

from .ProcessGroup import Programs, asSentence

_MOST_LINES = 2000


@dataclass(frozen=True)
class Step:
    """A program, or a function that touches neither a widget nor the scene."""

    sentence: str
    """What is happening, without a full stop."""
    action: Sequence[str] | Callable[[], None]
    share: float = 1.0
    """Of the whole, relative to the other steps' shares."""
    expectedLines: int = 10
    """About how many lines the program writes: the progress within the step."""
    optional: bool = False
    """Whether the others go on when it fails; why it did is in `BackgroundSteps.note`."""


class BackgroundSteps:
    """Runs steps on a thread of its own; everything here can be asked or called at any time and returns at once.

    Nobody is called back: whoever waits has to look now and then (`wait`).
    """

    def __init__(
        self, steps: Sequence[Step], variables: Mapping[str, str], undo: Callable[[], None] = lambda: None
    ) -> None:
        """
        Args:
            variables: the programs' environment variables.
            undo: called on the thread when a step has failed or the steps were cancelled.
        """
        self._steps = steps
        self._programs = Programs(variables)
        self._undo = undo
        self._lock = threading.Lock()
        self._lines: deque[str] = deque(maxlen=_MOST_LINES)
        self._thread = threading.Thread(target=self._run, name="RadiomicsLLM set-up", daemon=True)
        self._done = 0.0
        self.lineCount = 0
        """How many lines were written so far, also those that the log no longer holds."""
        self.sentence = ""
        """What is happening now."""
        self.fraction = 0.0
        """How much of the whole is done, 0..1."""
        self.problem = ""
        """Why it failed, in one sentence; empty as long as it did not."""
        self.note = ""
        """Why an optional step failed, in one sentence."""

    @property
    def isCancelled(self) -> bool:
        """Whether `cancel` was called."""
        return self._programs.isCancelled

    @property
    def log(self) -> list[str]:
        """The last lines that the programs wrote."""
        with self._lock:
            return list(self._lines)

    def start(self) -> None:
        """Begin; once only."""
        self._thread.start()

    def isRunning(self) -> bool:
        return self._thread.is_alive()

    def wait(self, seconds: float) -> bool:
        """Wait at most so long for the end, and say whether it has come."""
        self._thread.join(seconds)
        return not self.isRunning()

    def cancel(self) -> None:
        """Kill what runs, with all that it started. It is over, and undone, once `isRunning` is false."""
        self._programs.cancel()

    def _run(self) -> None:
        total = sum(step.share for step in self._steps)
        for step in self._steps:
            reason = "" if self.isCancelled else self._failure(step, step.share / total)
            if self.isCancelled:
                break
            if reason:
                sentence = _("{step} failed: {reason}").format(step=step.sentence, reason=asSentence(reason))
                if not step.optional:
                    self.problem = sentence
                    break
                self.note = sentence
            self._done += step.share / total
            self.fraction = self._done
        if self.problem or self.isCancelled:
            self._undo()

    def _failure(self, step: Step, share: float) -> str:
        """Do a step; why it failed, or an empty text."""
        self.sentence = step.sentence
        self._write(f"# {step.sentence}")
        try:
            if callable(step.action):
                step.action()
                return ""
            return self._execute(step.action, share, step.expectedLines)
        except OSError as error:
            return f"{error.filename or ''} {error.strerror or error}".strip()
        except Exception as error:  # a thread has nobody else who would tell the user
            if type(error).__name__ != "RadllmError":
                logging.exception("RadiomicsLLM's set-up failed.")
            return str(error)

    def _execute(self, command: Sequence[str], share: float, expectedLines: int) -> str:
        count = 0

        def heard(line: str) -> None:
            nonlocal count
            count += 1
            self._write(line)
            self.fraction = self._done + share * min(count / expectedLines, 0.95)

        return self._programs.run(command, heard)

    def _write(self, line: str) -> None:
        with self._lock:
            self._lines.append(line)
            self.lineCount += 1
