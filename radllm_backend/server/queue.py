"""Lesions of many requests, scored together: one queue with a bound, one scoring thread, and a turn for everybody."""

from __future__ import annotations

import asyncio
import hashlib
import time
from collections import OrderedDict, deque
from collections.abc import Callable, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, field
from typing import Literal

from radllm_backend.language.prompt import Pooling
from radllm_backend.models.conformal import DEFAULT_CONFIDENCE
from radllm_backend.records import Features

_BATCH_SECONDS = 1.0
"""What one batch may take: as long as that, a cancelled request still costs and a new one waits."""
_FIRST_GUESS = 0.1
_SLOW_TO_CHANGE = 0.5


@dataclass(frozen=True)
class Question:
    """What is asked of a lesion: lesions with the same question are scored together."""

    call: Literal["predict", "explain", "embed"]
    model: str
    confidence: float = DEFAULT_CONFIDENCE
    pooling: Pooling = "last"


AnswerTogether = Callable[[Question, Sequence[Features]], Sequence[bytes]]
"""The answers to lesions, each as JSON. Called in the scoring thread, one call at a time."""
Observe = Callable[[Question, int, float], None]
"""Told of each batch: its question, its lesions, its seconds."""


class QueueFullError(Exception):
    """No room for a request now."""

    def __init__(self, retry_after: int) -> None:
        """
        Args:
            retry_after: seconds until there is probably room.
        """
        super().__init__(f"full for about {retry_after} s")
        self.retry_after = retry_after


@dataclass
class _Waiting:
    """A lesion in the queue."""

    index: int
    key: bytes
    lesion: Features


@dataclass
class _Job:
    """A request with the lesions of it that are still to be scored."""

    question: Question
    future: asyncio.Future[list[bytes]]
    answers: list[bytes]
    unanswered: int
    waiting: deque[_Waiting] = field(default_factory=deque)

    def deliver(self, waiting: _Waiting, answer: bytes | Exception) -> None:
        """One lesion's answer; the first that fails ends the request, the last one fulfils it."""
        if self.future.done():
            return
        if isinstance(answer, Exception):
            self.future.set_exception(answer)
            return
        self.answers[waiting.index] = answer
        self.unanswered -= 1
        if not self.unanswered:
            self.future.set_result(self.answers)


class MicroBatches:
    """The queue in front of the models. All but the scoring happens in the event loop.

    While a batch is being scored, what arrives waits, and makes up the next one: an idle server answers at once, a busy
    one in large batches. A batch is as large as fits into about a second, and takes a lesion of each waiting request in
    turn, so that one request of many lesions does not hold up the small ones.
    """

    def __init__(
        self,
        score: AnswerTogether,
        *,
        most_waiting: int = 4096,
        most_together: int = 64,
        remembered: int = 2048,
        observe: Observe | None = None,
    ) -> None:
        """
        Args:
            most_waiting: lesions in the queue; a request that would go beyond is refused.
            most_together: lesions in a batch; 1 scores each by itself.
            remembered: answers kept for lesions that come again, a few kilobytes each; 0 keeps none.
        """
        self._score = score
        self._most_waiting, self._most_together = most_waiting, most_together
        self._remembered = remembered
        self._observe = observe
        self._memory: OrderedDict[tuple[Question, bytes], bytes] = OrderedDict()
        self._jobs: deque[_Job] = deque()
        self._arrived = asyncio.Event()
        self._seconds: dict[tuple[str, str], float] = {}
        self.thread = ThreadPoolExecutor(max_workers=1, thread_name_prefix="scoring")

    @property
    def waiting(self) -> int:
        """Lesions in the queue."""
        return sum(len(job.waiting) for job in self._jobs if not job.future.done())

    async def answers(self, question: Question, lesions: Sequence[Features]) -> list[bytes]:
        """The answers to the lesions of one request, in its order. Cancelling takes what waits out of the queue.

        Raises:
            QueueFullError: no room for so many lesions now.
            Exception: whatever the first lesion that cannot be scored raised.
        """
        job = _Job(question, asyncio.get_running_loop().create_future(), [b""] * len(lesions), len(lesions))
        for index, lesion in enumerate(lesions):
            waiting = _Waiting(index, hashlib.sha256(lesion.model_dump_json().encode()).digest(), lesion)
            known = self._recall(question, waiting.key)
            if known is None:
                job.waiting.append(waiting)
            else:
                job.deliver(waiting, known)
        if job.waiting:
            if self.waiting + len(job.waiting) > self._most_waiting:
                raise QueueFullError(self._seconds_until_empty())
            self._jobs.append(job)
            self._arrived.set()
        return await job.future

    async def run(self) -> None:
        """Score until cancelled."""
        loop = asyncio.get_running_loop()
        while True:
            await self._arrived.wait()
            batch = self._next_batch()
            if not batch:
                self._arrived.clear()
                continue
            question = batch[0][0].question
            lesions = {waiting.key: waiting.lesion for _, waiting in batch}
            started = time.perf_counter()
            answers = await loop.run_in_executor(self.thread, self._scored, question, list(lesions.values()))
            self._learn_pace(question, len(lesions), time.perf_counter() - started)
            by_key = dict(zip(lesions, answers, strict=True))
            for job, waiting in batch:
                job.deliver(waiting, by_key[waiting.key])
            self._deliver_to_others(question, by_key)
            self._remember(question, by_key)

    def _next_batch(self) -> list[tuple[_Job, _Waiting]]:
        """Lesions with one question, one of each request in turn; those served go to the end of the queue."""
        self._jobs = deque(job for job in self._jobs if job.waiting and not job.future.done())
        if not self._jobs:
            return []
        question = self._jobs[0].question
        together = deque(job for job in self._jobs if job.question == question)
        size = self._size(question)
        batch: list[tuple[_Job, _Waiting]] = []
        while together and len(batch) < size:
            job = together.popleft()
            batch.append((job, job.waiting.popleft()))
            if job.waiting:
                together.append(job)
        self._jobs = deque([*(job for job in self._jobs if job.question != question), *together])
        return batch

    def _deliver_to_others(self, question: Question, answers: dict[bytes, bytes | Exception]) -> None:
        """What was just scored is not scored again for those who wait for the same."""
        for job in self._jobs:
            if job.question == question:
                same = [waiting for waiting in job.waiting if waiting.key in answers]
                for waiting in same:
                    job.deliver(waiting, answers[waiting.key])
                if same:
                    job.waiting = deque(waiting for waiting in job.waiting if waiting.key not in answers)

    def _scored(self, question: Question, lesions: Sequence[Features]) -> list[bytes | Exception]:
        """An answer or an error for each lesion: one that cannot be scored takes no other along."""
        try:
            return list(self._score(question, lesions))
        except Exception as error:
            if len(lesions) == 1:
                return [error]
        return [answer for lesion in lesions for answer in self._scored(question, [lesion])]

    def _size(self, question: Question) -> int:
        seconds = self._seconds.get((question.call, question.model), _FIRST_GUESS)
        return max(1, min(self._most_together, int(_BATCH_SECONDS / seconds)))

    def _learn_pace(self, question: Question, lesions: int, seconds: float) -> None:
        kind, now = (question.call, question.model), max(seconds / lesions, 1e-5)
        before = self._seconds.get(kind, now)
        self._seconds[kind] = before + _SLOW_TO_CHANGE * (now - before)
        if self._observe:
            self._observe(question, lesions, seconds)

    def _seconds_until_empty(self) -> int:
        slowest = max(self._seconds.values(), default=_FIRST_GUESS)
        return max(1, min(60, round(self.waiting * slowest)))

    def _recall(self, question: Question, key: bytes) -> bytes | None:
        answer = self._memory.get((question, key))
        if answer is not None:
            self._memory.move_to_end((question, key))
        return answer

    def _remember(self, question: Question, answers: dict[bytes, bytes | Exception]) -> None:
        for key, answer in answers.items():
            if isinstance(answer, bytes):
                self._memory[question, key] = answer
        while len(self._memory) > self._remembered:
            self._memory.popitem(last=False)
