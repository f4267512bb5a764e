"""Steps run beside the event loop, which stays free."""

from __future__ import annotations

import threading
import time
from collections.abc import Callable
from typing import Any, Generic

import qt

from .Background import Background, Result, Steps

_SHORTEST, _LONGEST = 1, 20  # milliseconds between two looks at the thread: many steps are done at once
_OFTEN = 100  # milliseconds between two looks at a step that takes long and tells its progress
_LENT = 0.005  # seconds: Slicer lets other threads run while Python waits, and hardly otherwise
_PATIENCE = 0.7  # seconds that a cancelled step may still take before nobody waits for it

_left: set[threading.Thread] = set()
"""Steps of cancelled runs that have not ended yet. What they use, such as a model, is nobody else's until they have."""

_going: set[BackgroundRun[Any]] = set()
"""Runs that are not over. Were a thread the last to hold one, it would destroy the run's timer, which Qt forbids."""


class _Work:
    """A step on a thread of its own. It holds neither its run nor anything of Qt's."""

    def __init__(self, function: Callable[[], Any]) -> None:
        self.outcome: tuple[Any, BaseException | None] = (None, None)
        self.thread = threading.Thread(target=self._do, args=(function,), name="RadiomicsLLM", daemon=True)
        self.thread.start()

    def _do(self, function: Callable[[], Any]) -> None:
        for other in list(_left):
            other.join()
        try:
            self.outcome = function(), None
        except Exception as error:
            self.outcome = None, error
        finally:
            _left.discard(threading.current_thread())


class BackgroundRun(Generic[Result]):
    """Runs steps: each on a thread of its own, and what lies between them on the main thread.

    PythonQt takes no signals from Python's threads, so a timer looks whether a step is done.
    """

    def __init__(
        self,
        steps: Steps[Result],
        *,
        told: Callable[[str, float], None],
        finished: Callable[[Result | None, BaseException | None], None],
    ) -> None:
        """
        Args:
            told: called with what is happening now and how much is done, 0..1.
            finished: called once, with what the steps return and None, or with None and why there is nothing: the
                exception, or None where the run was cancelled.
        """
        self._steps = steps
        self._told, self._finished = told, finished
        self._work: _Work | None = None
        self._isCancelled = self._isLeft = self._isOver = False
        self._patienceEnds = 0.0
        self._progress: Callable[[], tuple[str, float]] | None = None
        self._interval = _SHORTEST
        self._timer = qt.QTimer()
        self._timer.connect("timeout()", self._look)

    def start(self) -> None:
        """Begin; returns at once."""
        _going.add(self)
        self._goOn(lambda: next(self._steps))

    def cancel(self) -> None:
        """End with the step that is under way, whose result is thrown away, and within a second in any case.

        A step that goes on for longer is left alone. The steps are closed, so that they undo what they did, once it
        has ended; steps of other runs wait for that too.
        """
        self._isCancelled = True
        self._patienceEnds = time.monotonic() + _PATIENCE

    def abandon(self) -> None:
        """Never call anything again: whoever listened is gone. A step under way ends by itself."""
        if self._work and self._work.thread.is_alive():
            _left.add(self._work.thread)
        self._steps.close()
        self._letGo()

    def _look(self) -> None:
        if self._work is None:
            return
        thread = self._work.thread
        thread.join(_LENT)
        if thread.is_alive():
            if self._isCancelled and not self._isLeft and time.monotonic() >= self._patienceEnds:
                self._leave(thread)
            if self._progress and not self._isCancelled:
                self._told(*self._progress())
            self._wait(min(2 * self._interval, _OFTEN if self._progress and not self._isCancelled else _LONGEST))
            return
        self._timer.stop()
        if self._isCancelled:
            self._steps.close()
            if self._isLeft:
                self._letGo()
            else:
                self._finish(None, None)
            return
        answer, error = self._work.outcome
        self._goOn(lambda: self._steps.throw(error) if error else self._steps.send(answer))

    def _leave(self, thread: threading.Thread) -> None:
        self._isLeft = True
        _left.add(thread)
        self._finish(None, None)

    def _finish(self, answer: Result | None, error: BaseException | None) -> None:
        self._finished(answer, error)
        if not self._isLeft:
            self._letGo()

    def _letGo(self) -> None:
        """A timer that is connected would keep this, and all that the steps hold, for as long as Slicer runs."""
        self._work = None
        if not self._isOver:
            self._isOver = True
            self._timer.stop()
            self._timer.deleteLater()  # not at once: it may be the timer that has called
            _going.discard(self)

    def _goOn(self, advance: Callable[[], Background[Any]]) -> None:
        try:
            step = advance()
        except StopIteration as end:
            self._finish(end.value, None)
        except Exception as error:
            self._finish(None, error)
        else:
            self._told(step.sentence, step.fraction)
            self._progress = step.progress
            self._work = _Work(step.function)
            self._wait(_SHORTEST)

    def _wait(self, milliseconds: int) -> None:
        self._interval = milliseconds
        self._timer.start(milliseconds)
