"""Requests that arrive together are scored together; none is lost, none waits for another's fault or for its size."""

from __future__ import annotations

import asyncio
import contextlib
import time
from collections.abc import Callable, Coroutine, Sequence
from typing import Any

import pytest

from radllm_backend.errors import RadllmError
from radllm_backend.records import Features
from radllm_backend.server.queue import MicroBatches, Question, QueueFullError

PREDICT = Question("predict", "tiny")


class Scorer:
    """Answers each lesion with its number, in a known time, and keeps what it was asked."""

    def __init__(self, seconds: float = 0.0) -> None:
        self.seconds = seconds
        self.batches: list[tuple[Question, list[int]]] = []

    def __call__(self, question: Question, lesions: Sequence[Features]) -> list[bytes]:
        numbers = [int(lesion.values["original_firstorder_Energy"] or 0) for lesion in lesions]
        self.batches.append((question, numbers))
        time.sleep(self.seconds * len(numbers))
        if any(number < 0 for number in numbers):
            raise RadllmError(f"{min(numbers)} cannot be scored.")
        return [str(number).encode() for number in numbers]

    def scored(self) -> list[int]:
        return [number for _, numbers in self.batches for number in numbers]


def lesion(number: int) -> Features:
    return Features(values={"original_firstorder_Energy": number})


def run(scorer: Scorer, work: Callable[[MicroBatches], Coroutine[Any, Any, Any]], **options: Any) -> Any:
    """Let `work` ask a queue in front of `scorer`, and return what it returns."""

    async def main() -> Any:
        batches = MicroBatches(scorer, **options)
        running = asyncio.create_task(batches.run())
        try:
            return await asyncio.wait_for(work(batches), 30)
        finally:
            running.cancel()
            batches.thread.shutdown()

    return asyncio.run(main())


def test_each_request_gets_its_own_answers_in_its_order():
    async def work(batches: MicroBatches) -> list[list[bytes]]:
        asked = [[100 * request + number for number in range(1 + request % 7)] for request in range(50)]
        answers = await asyncio.gather(*(batches.answers(PREDICT, list(map(lesion, row))) for row in asked))
        assert [[int(answer) for answer in row] for row in answers] == asked
        return answers

    run(Scorer(), work)


def test_what_arrives_while_others_are_scored_is_scored_together():
    scorer = Scorer(0.005)

    async def work(batches: MicroBatches) -> None:
        await asyncio.gather(*(batches.answers(PREDICT, [lesion(number)]) for number in range(64)))

    run(scorer, work, most_together=32)
    assert sorted(scorer.scored()) == list(range(64))
    assert len(scorer.batches) <= 12
    assert max(len(numbers) for _, numbers in scorer.batches) <= 32
    alone = Scorer(0.005)
    run(alone, work, most_together=1)
    assert len(alone.batches) == 64


def test_only_the_same_question_is_scored_together():
    scorer = Scorer(0.002)
    questions = [
        Question("predict", "a"),
        Question("explain", "a"),
        Question("predict", "b"),
        Question("predict", "a", 0.9),
    ]

    async def work(batches: MicroBatches) -> None:
        await asyncio.gather(*(batches.answers(questions[n % 4], [lesion(n)]) for n in range(40)))

    run(scorer, work)
    for question, numbers in scorer.batches:
        assert {questions[number % 4] for number in numbers} == {question}


def test_one_lesion_that_cannot_be_scored_fails_its_own_request_only():
    async def work(batches: MicroBatches) -> list[Any]:
        asked = [[lesion(1)], [lesion(2), lesion(-3)], [lesion(4)]]
        return await asyncio.gather(*(batches.answers(PREDICT, row) for row in asked), return_exceptions=True)

    first, second, third = run(Scorer(0.001), work)
    assert (first, third) == ([b"1"], [b"4"])
    assert str(second) == "-3 cannot be scored."


def test_a_full_queue_refuses_and_says_when_to_come_back():
    async def work(batches: MicroBatches) -> None:
        first = asyncio.create_task(batches.answers(PREDICT, [lesion(number) for number in range(10)]))
        await asyncio.sleep(0.01)
        with pytest.raises(QueueFullError) as refused:
            await batches.answers(PREDICT, [lesion(number) for number in range(10, 20)])
        assert refused.value.retry_after >= 1
        assert len(await first) == 10
        assert await batches.answers(PREDICT, [lesion(99)]) == [b"99"]

    run(Scorer(0.02), work, most_waiting=12, most_together=1)


def test_a_cancelled_request_costs_no_more():
    scorer = Scorer(0.005)

    async def work(batches: MicroBatches) -> None:
        long = asyncio.create_task(batches.answers(PREDICT, [lesion(number) for number in range(1000)]))
        await asyncio.sleep(0.1)
        long.cancel()
        with contextlib.suppress(asyncio.CancelledError):
            await long
        assert batches.waiting == 0
        assert await batches.answers(PREDICT, [lesion(2000)]) == [b"2000"]
        await asyncio.sleep(1.5)

    run(scorer, work)
    assert len(scorer.scored()) < 150  # those of the batch under way


def test_a_small_request_does_not_wait_for_the_whole_of_a_large_one():
    scorer = Scorer(0.01)

    async def work(batches: MicroBatches) -> None:
        large = asyncio.create_task(batches.answers(PREDICT, [lesion(number) for number in range(300)]))
        await asyncio.sleep(0.05)
        await batches.answers(PREDICT, [lesion(1000)])
        assert not large.done()
        large.cancel()

    run(scorer, work)
    assert len(scorer.scored()) < 250


def test_a_lesion_that_comes_again_is_not_scored_again_within_bounds():
    scorer = Scorer()

    async def work(batches: MicroBatches) -> None:
        for number in (1, 2, 1, 3, 1, 2):
            assert await batches.answers(PREDICT, [lesion(number)]) == [str(number).encode()]
        assert await batches.answers(Question("explain", "tiny"), [lesion(1)]) == [b"1"]

    run(scorer, work, remembered=2)
    assert scorer.scored() == [1, 2, 3, 2, 1]
    forgetful = Scorer()
    run(forgetful, work, remembered=0)
    assert len(forgetful.scored()) == 7


def test_the_same_lesion_of_two_requests_is_scored_once():
    scorer = Scorer(0.01)

    async def work(batches: MicroBatches) -> None:
        answers = await asyncio.gather(*(batches.answers(PREDICT, [lesion(n % 3)]) for n in range(30)))
        assert answers == [[str(n % 3).encode()] for n in range(30)]

    run(scorer, work)
    assert len(scorer.scored()) <= 6


def test_the_same_lesion_is_scored_once_also_where_each_is_scored_by_itself():
    scorer = Scorer(0.001)

    async def work(batches: MicroBatches) -> None:
        answers = await asyncio.gather(*(batches.answers(PREDICT, [lesion(n % 3)]) for n in range(30)))
        assert answers == [[str(n % 3).encode()] for n in range(30)]

    run(scorer, work, remembered=0, most_together=1)
    assert sorted(scorer.scored()) == [0, 1, 2]
