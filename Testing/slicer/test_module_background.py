"""Steps beside the event loop: Cancel is quick whatever a step does, and nothing is kept when it is over."""

from __future__ import annotations

import gc
import threading
import time
import weakref
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from Testing.slicer.module_scene import python, slicer, slot_errors, wait_until

from RadiomicsLLMLib.panel.Background import Background
from RadiomicsLLMLib.panel.BackgroundRun import BackgroundRun


class Watched:
    """A run of two steps, and all that it tells."""

    def __init__(self, first: Callable[[], Any], second: Callable[[], Any] = str) -> None:
        self.told: list[str] = []
        self.ends: list[tuple[Any, BaseException | None]] = []
        self.isClosed = False
        self.run = BackgroundRun(
            self._steps(first, second),
            told=lambda sentence, _fraction: self.told.append(sentence),
            finished=lambda answer, error: self.ends.append((answer, error)),
        )
        self.run.start()

    def _steps(self, first: Callable[[], Any], second: Callable[[], Any]) -> Any:
        try:
            answer = yield from Background("first", first)
            return answer, (yield from Background("second", second))
        finally:
            self.isClosed = True

    def wait(self) -> None:
        wait_until(lambda: bool(self.ends))


def test_a_step_that_cannot_be_interrupted_is_left_alone() -> None:
    slot_errors.clear()
    may_end, order = threading.Event(), []

    def stubborn() -> None:
        may_end.wait(60)
        order.append("stubborn")

    one = Watched(stubborn, lambda: order.append("never"))
    one.run.cancel()
    began = time.monotonic()
    one.wait()
    assert time.monotonic() - began < 1
    assert one.ends == [(None, None)]
    assert not one.isClosed  # what it undoes may be in use
    other = Watched(lambda: order.append("other"))
    wait_until(lambda: time.monotonic() - began > 1.2)
    assert (order, other.ends) == ([], [])  # it may need the same model
    may_end.set()
    other.wait()
    wait_until(lambda: one.isClosed)
    assert order == ["stubborn", "other"]
    assert one.ends == [(None, None)]
    assert one.told == ["first"]
    assert slot_errors == []


def test_a_run_that_waits_for_a_left_one_is_cancelled_as_quickly() -> None:
    may_end = threading.Event()
    runs = []
    for _ in range(2):
        runs.append(Watched(lambda: may_end.wait(60)))
        runs[-1].run.cancel()
        began = time.monotonic()
        runs[-1].wait()
        assert time.monotonic() - began < 1
    may_end.set()
    wait_until(lambda: all(run.isClosed for run in runs))


def test_a_short_step_is_waited_for() -> None:
    run = Watched(lambda: time.sleep(0.2))
    run.run.cancel()
    run.wait()
    assert run.isClosed
    assert (run.ends, run.told) == ([(None, None)], ["first"])


class _Large:
    """Stands for a CT."""


@pytest.mark.parametrize("how", ["ends", "fails", "is cancelled", "is abandoned"])
def test_nothing_is_kept_of_a_run_that_is_over(how: str) -> None:
    slot_errors.clear()
    large = _Large()
    gone = weakref.ref(large)

    def step(held: _Large = large) -> _Large:
        if how == "fails":
            raise ValueError("no")
        return held

    run = Watched(step)
    del large, step
    if how == "is cancelled":
        run.run.cancel()
    if how == "is abandoned":
        run.run.abandon()
        run.ends.append((None, None))
    run.wait()
    slicer.app.processEvents()
    assert len(run.ends) == 1
    background = weakref.ref(run.run)
    del run
    gc.collect()
    assert background() is None
    assert gone() is None
    assert slot_errors == []


def test_a_thread_is_never_the_last_to_hold_a_run() -> None:
    """It would destroy the run's timer, and Qt allows that on the main thread alone."""
    may_end, ends, where = threading.Event(), list[Any](), list[threading.Thread]()

    def steps() -> Any:
        yield from Background("first", lambda: may_end.wait(60))

    run = BackgroundRun(steps(), told=lambda _sentence, _fraction: None, finished=lambda *answer: ends.append(answer))
    gone = weakref.ref(run, lambda _: where.append(threading.current_thread()))
    run.start()
    run.cancel()
    wait_until(lambda: bool(ends))
    del run
    may_end.set()
    wait_until(lambda: bool(where))
    assert gone() is None
    assert where == [threading.main_thread()]


def test_while_a_lesion_is_classified_the_main_thread_imports_nothing_of_the_package(
    self_contained_model: Path,
) -> None:
    """What was just installed is compiled when it is imported: for seconds, in which no window would go on."""
    code = """
        import builtins, sys, threading
        from Testing.slicer.module_scene import *
        from Testing.slicer.module_scene import RadiomicsLLM
        panel = open_module(RadiomicsLLM)
        choose_backend(panel, "process")
        choose_own_model(panel, sys.argv[1])
        choose_modality(panel, "US")
        add_segmentation(add_volume())
        real = builtins.__import__
        def imported(*arguments, **options):
            before = set(sys.modules) if threading.current_thread() is threading.main_thread() else None
            module = real(*arguments, **options)
            for name in set(sys.modules) - before if before is not None else ():
                if threading.current_thread() is threading.main_thread():
                    found.add(name)
            return module
        found = set()
        builtins.__import__ = imported
        begin(panel)
        found.clear()
        finish(panel)
        builtins.__import__ = real
        assert len(probabilities()) == 2
        print(sorted(name for name in found if name.split(".")[0] in ("radllm_backend", "pydicom", "scipy")))
    """
    assert python(code, str(self_contained_model)).splitlines()[-1] == "[]"
