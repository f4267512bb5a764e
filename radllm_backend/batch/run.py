"""Every lesion of a source, measured by many workers, scored together, and kept as it comes.

A run that ended early, in whatever way, goes on with the same call: what has its row is not done again.
"""

from __future__ import annotations

import signal
import threading
import time
import uuid
from collections import deque
from collections.abc import Callable, Iterator
from concurrent.futures import CancelledError, Future, ThreadPoolExecutor
from contextlib import contextmanager, suppress
from dataclasses import dataclass, field
from pathlib import Path
from queue import Empty, SimpleQueue
from types import FrameType
from typing import TYPE_CHECKING

from threadpoolctl import threadpool_limits

from radllm_backend.batch.candidates import Candidate, Found
from radllm_backend.batch.cluster import Place, connected, scheduler_gone, threads
from radllm_backend.batch.page import Page, write_page
from radllm_backend.batch.results import Counts, Results, Row, open_results
from radllm_backend.batch.scoring import BatchPlan, MeasuredLesion, row_of, scored
from radllm_backend.batch.tables import write_exports
from radllm_backend.batch.worker import Measurement, measure_lesions, reason_of, settings_text
from radllm_backend.errors import RadllmError
from radllm_backend.records import Record

if TYPE_CHECKING:
    import distributed
    from distributed import Client

    _Answer = distributed.Future[list[str]]

RESULTS = "results.sqlite"
SCORED_TOGETHER = 64
"""Lesions that the model reads at once."""
EXPLAINED_TOGETHER = 8
"""With reasons, which cost up to twenty times as much."""
_LONGEST_WAIT = 1.0
"""Seconds that a measured lesion waits for others to be scored with."""
_TICK = 0.1
_WORK_SECONDS = 1.0
"""That a worker is given at a time, or one lesion: each message costs the main process some milliseconds."""
_MOST_AT_A_TIME = 16
"""Lesions: they are measured anew where a worker dies meanwhile."""
_COUNT_SECONDS = 2.0
"""Between two looks at how many workers there are: those of a cluster come and go."""


class Summary(Record):
    """How a run ended."""

    lesions: int
    """Of the source, that can be classified."""
    left_out: int
    """Of the source too, that cannot."""
    kept: int
    """Of the lesions: settled by an earlier run."""
    incomplete: int
    """Of those: done, but without the reports or the reasons that this run was asked for."""
    done: int
    """In this run."""
    failed: int
    """In this run."""
    stopped: bool
    """By a signal, before the end; nothing is exported then."""
    seconds: float


@dataclass(frozen=True)
class Step:
    """New rows, and how far the run is."""

    rows: list[Row]
    settled: int
    """Lesions that have their row from this run."""
    total: int
    """Lesions that this run has to do."""
    rate: float
    """Lesions a minute, so far."""
    seconds_left: float


OnStep = Callable[[Step], None]


def run_batch(plan: BatchPlan, on_step: OnStep = lambda step: None) -> Summary:
    """Classify what the plan's source holds and what has no row yet, then export all rows of this model and settings.

    A lesion that fails has a row with its reason, and stops nothing. SIGINT and SIGTERM end the run with its rows kept.

    Args:
        on_step: called in this thread, with each lesion once.

    Raises:
        RadllmError: the source holds no lesion, the model is not there or reads no image, the workers, the server or
            the output are not there.
    """
    candidates = list({candidate.key: candidate for candidate in plan.found.candidates}.values())
    if not candidates:
        raise RadllmError(_nothing(plan.found))
    begun = time.monotonic()
    plan.place.check()
    of_run = (plan.settings.sha256, plan.model.sha256)
    _make_folder(plan.output)
    with open_results(plan.output / RESULTS) as results:
        kept: list[Candidate] = []
        pending: deque[Candidate] = deque()
        for candidate in candidates:
            (kept if results.is_settled(candidate, *of_run, retry=plan.retry) else pending).append(candidate)
        run = _Run(plan, results, pending, on_step)
        stopped = _carry_out(run, plan.place) if pending else False
        summary = Summary(
            lesions=len(candidates),
            left_out=len(plan.found.refusals),
            kept=len(kept),
            incomplete=_incomplete(plan, results, kept),
            done=run.counts.done,
            failed=run.counts.failed,
            stopped=stopped,
            seconds=time.monotonic() - begun,
        )
        if not stopped:
            write_exports(plan.output, results, *of_run)
            write_page(plan.output, Page.of(results, plan.model.identity, plan.settings, plan.found, plan.command))
    return summary


def _nothing(found: Found) -> str:
    if not found.refusals:
        return "Nothing here can be classified: there is no segmented lesion that fits; see --list."
    first = found.refusals[0]
    return f"Nothing here can be classified: {len(found.refusals)} left out, first {first.what}: {first.reason}"


def _incomplete(plan: BatchPlan, results: Results, kept: list[Candidate]) -> int:
    """How many lesions of earlier runs are done without what is asked for now: it is made with a prediction only."""
    if not (plan.reports or plan.explain):
        return 0
    explained = results.explained(plan.settings.sha256, plan.model.sha256)
    done = [candidate.key for candidate in kept if candidate.key in explained]
    return sum(
        (plan.explain and not explained[key]) or (plan.reports and not plan.report_folder(key).is_dir()) for key in done
    )


def _make_folder(folder: Path) -> None:
    try:
        folder.mkdir(parents=True, exist_ok=True)
    except OSError as error:
        raise RadllmError(
            f"The folder {folder} cannot be made ({error.strerror or error}): choose another output."
        ) from error


def _carry_out(run: _Run, place: Place) -> bool:
    """Start the workers and do all that is pending; whether a signal ended it before."""
    with ThreadPoolExecutor(1, "scoring") as scorer, stopping() as stop:
        loading = scorer.submit(run.plan.model.warm_up)  # while the workers start: neither waits for the other
        with connected(place) as client:
            loading.result()
            return run.all(client, scorer, stop)


def _scored_beside_workers(plan: BatchPlan, lesions: list[MeasuredLesion]) -> list[Row]:
    """As `scored`, on the threads that the workers leave."""
    with threadpool_limits(plan.place.spare_threads, user_api="openmp"):
        return scored(plan, lesions)


@contextmanager
def stopping() -> Iterator[threading.Event]:
    """An event that SIGINT and SIGTERM set; where this is not the main thread, nothing does."""
    stop = threading.Event()

    def ask(number: int, frame: FrameType | None) -> None:
        stop.set()

    caught = (signal.SIGINT, signal.SIGTERM) if threading.current_thread() is threading.main_thread() else ()
    before = {number: signal.signal(number, ask) for number in caught}
    try:
        yield stop
    finally:
        for number, handler in before.items():
            signal.signal(number, handler)


@dataclass
class _Run:
    """Lesions on their way: pending, measured by a worker, waiting to be scored, scored, kept.

    All but the scoring happens in one thread. No more lesions are under way than the workers and one scoring need, so
    that the memory does not depend on how many there are.
    """

    plan: BatchPlan
    results: Results
    pending: deque[Candidate]
    on_step: OnStep
    counts: Counts = field(default_factory=lambda: Counts(done=0, failed=0))
    _suspects: deque[Candidate] = field(default_factory=deque)
    """Their worker died, which another lesion may have been the cause of: tried once more, each alone."""
    _alone: Candidate | None = None
    _flying: dict[str, list[Candidate]] = field(default_factory=dict)
    """By their future's key: those that a worker is given at a time."""
    _futures: dict[str, _Answer] = field(default_factory=dict)
    _landed: SimpleQueue[_Answer] = field(default_factory=SimpleQueue)
    _waiting: list[MeasuredLesion] = field(default_factory=list)
    _scoring: Future[list[Row]] | None = None
    _being_scored: int = 0
    _threads: int = 1
    _lesion_seconds: float = _WORK_SECONDS
    """That a worker takes for one."""
    _counted: float = -_COUNT_SECONDS
    _begun: float = 0.0

    def __post_init__(self) -> None:
        self._total = len(self.pending)
        self._settings_text = settings_text(self.plan.settings)
        self._together = EXPLAINED_TOGETHER if self.plan.explain else SCORED_TOGETHER

    def all(self, client: Client, scorer: ThreadPoolExecutor, stop: threading.Event) -> bool:
        """Do all that is pending; whether it was stopped before."""
        self._begun = time.monotonic()  # the workers' start is not a part of the rate
        try:
            while not stop.is_set() and self._is_unfinished:
                self._send(client)
                self._collect(client)
                self._score(scorer)
                self._keep()
        finally:
            with suppress(Exception):  # of a scheduler that is gone, and has its sentence already
                client.cancel(list(self._futures.values()), force=True)
        if self._scoring:  # a signal came meanwhile, and what was worked for is kept
            self._scoring.exception()
            self._keep()
        return self._is_unfinished

    @property
    def _is_unfinished(self) -> bool:
        return bool(self.pending or self._suspects or self._flying or self._waiting or self._scoring)

    def _send(self, client: Client) -> None:
        """Give the workers more, something in advance each."""
        if time.monotonic() - self._counted >= _COUNT_SECONDS:
            self._threads, self._counted = threads(client), time.monotonic()
        while len(self._flying) < 2 * self._threads and self._under_way < 2 * self._threads + 4 * self._together:
            lesions = self._next()
            if not lesions:
                return
            key = f"lesions-{uuid.uuid4().hex}"
            given = ([lesion.model_dump_json() for lesion in lesions], self._settings_text, self.plan.read)
            try:
                future = client.submit(measure_lesions, *given, pictures=self.plan.reports, key=key, pure=False)
            except Exception as error:  # Dask says in many ways that it is closed
                raise scheduler_gone() from error
            self._flying[key], self._futures[key] = lesions, future
            future.add_done_callback(self._landed.put)

    @property
    def _under_way(self) -> int:
        return sum(map(len, self._flying.values())) + len(self._waiting) + self._being_scored

    def _next(self) -> list[Candidate]:
        """What a worker is given at a time; near the end less, so that none waits for another."""
        if self.pending:
            share = min(len(self.pending) // (4 * self._threads), int(_WORK_SECONDS / self._lesion_seconds))
            return [self.pending.popleft() for _ in range(max(1, min(share, _MOST_AT_A_TIME)))]
        if self._suspects and not self._flying:
            self._alone = self._suspects.popleft()
            return [self._alone]
        return []

    def _collect(self, client: Client) -> None:
        """Take what the workers have done, after a short wait."""
        try:
            future = self._landed.get(timeout=_TICK if self._flying else 0.01)
            while True:
                self._take(client, future)
                future = self._landed.get_nowait()
        except Empty:
            if client.status != "running":
                raise scheduler_gone() from None

    def _take(self, client: Client, future: _Answer) -> None:
        key = str(future.key)
        lesions = self._flying.pop(key)
        del self._futures[key]
        for candidate, measured in zip(lesions, self._answers(client, future, lesions), strict=False):
            self._lesion_seconds += 0.1 * (max(measured.seconds, 1e-3) - self._lesion_seconds)
            if measured.features is None:
                self._add([row_of(self.plan, candidate, seconds=measured.seconds, reason=measured.reason)])
            else:
                self._waiting.append(
                    MeasuredLesion(candidate, measured.features, measured.seconds, time.monotonic(), measured.picture)
                )

    def _answers(self, client: Client, future: _Answer, lesions: list[Candidate]) -> list[Measurement]:
        """What a worker says of lesions; nothing where they have to be measured again."""
        from distributed import KilledWorker

        if future.status == "lost":  # its worker, ended by the next lesion, took the answer along
            self.pending.extendleft(reversed(lesions))
            return []
        try:
            return [Measurement.model_validate_json(answer) for answer in future.result()]
        except KilledWorker:
            if lesions != [self._alone]:
                self._suspects.extend(lesions)
                return []
            return [
                Measurement(
                    reason="The process that measured it was ended, probably for want of memory: give it more "
                    "(--memory)."
                )
            ]
        except (CancelledError, OSError) as error:  # what a worker itself raises arrives as an answer
            raise scheduler_gone() from error
        except Exception as error:  # the worker could not be given them
            if client.status != "running":
                raise scheduler_gone() from error
            return [Measurement(reason=reason_of(error, candidate)) for candidate in lesions]

    def _score(self, scorer: ThreadPoolExecutor) -> None:
        """Start the next scoring: of many together, or of those who have waited long enough."""
        if self._scoring or not self._waiting:
            return
        patient = self._flying and time.monotonic() - self._waiting[0].since < _LONGEST_WAIT
        if len(self._waiting) < self._together and patient:
            return
        lesions, self._waiting = self._waiting[: self._together], self._waiting[self._together :]
        self._being_scored = len(lesions)
        self._scoring = scorer.submit(_scored_beside_workers, self.plan, lesions)

    def _keep(self) -> None:
        """The rows of a scoring that is over."""
        if self._scoring and self._scoring.done():
            finished, self._scoring, self._being_scored = self._scoring, None, 0
            self._add(finished.result())

    def _add(self, rows: list[Row]) -> None:
        self.results.add(rows)
        failed = sum(row.status == "failed" for row in rows)
        self.counts = Counts(done=self.counts.done + len(rows) - failed, failed=self.counts.failed + failed)
        settled = self.counts.done + self.counts.failed
        seconds = max(time.monotonic() - self._begun, 1e-3)
        self.on_step(
            Step(
                rows=rows,
                settled=settled,
                total=self._total,
                rate=60 * settled / seconds,
                seconds_left=seconds * (self._total - settled) / settled,
            )
        )
