"""What a server says of its work: a line of JSON an event, and numbers for Prometheus. Never a feature value.

A request's body appears in the log only where the user asks for it; the token and an exception's own words, which may
repeat a value, never do.
"""

from __future__ import annotations

import json
import logging
import sys
import time
import traceback
import uuid
from collections.abc import Callable
from typing import IO, Any

from prometheus_client import CollectorRegistry, Counter, Gauge, Histogram, ProcessCollector, generate_latest
from starlette.types import ASGIApp, Message, Receive, Scope, Send

from radllm_backend.errors import RadllmError
from radllm_backend.server.queue import Question

LOGGER = logging.getLogger("radllm.server")
_BATCHES = (1, 2, 4, 8, 16, 32, 64, 128)
_SECONDS = (0.002, 0.005, 0.01, 0.02, 0.05, 0.1, 0.2, 0.5, 1, 2, 5, 10, 30, 60)


class JsonLines(logging.Formatter):
    """One JSON object a record: time, level, logger, event, and the record's own ``fields``."""

    def format(self, record: logging.LogRecord) -> str:
        line: dict[str, Any] = {
            "time": time.strftime("%Y-%m-%dT%H:%M:%S", time.gmtime(record.created)) + f".{record.msecs:03.0f}Z",
            "level": record.levelname.lower(),
            "logger": record.name,
            "event": record.getMessage(),
            **getattr(record, "fields", {}),
        }
        if record.exc_info and record.exc_info[1] is not None:
            line["exception"] = _account(record.exc_info[1])
        return json.dumps(line, ensure_ascii=False)


def _account(error: BaseException) -> dict[str, Any]:
    """An exception by its type and the places it went through; by its words only where they are ours."""
    frames = traceback.extract_tb(error.__traceback__)
    account: dict[str, Any] = {
        "type": type(error).__name__,
        "where": [f"{frame.filename}:{frame.lineno} {frame.name}" for frame in frames[-8:]],
    }
    if isinstance(error, RadllmError):
        account["message"] = str(error)
    if error.__cause__ is not None:
        account["cause"] = _account(error.__cause__)
    return account


def write_log_to(stream: IO[str] = sys.stderr, level: int = logging.INFO) -> None:
    """Let the server's and uvicorn's loggers write JSON lines."""
    handler = logging.StreamHandler(stream)
    handler.setFormatter(JsonLines())
    logging.raiseExceptions = False  # a log that cannot be written must not stop a server
    for name, least in (("radllm.server", level), ("uvicorn.error", logging.WARNING)):
        logger = logging.getLogger(name)
        logger.handlers, logger.propagate = [handler], False
        logger.setLevel(max(level, least))


def note(event: str, *, level: int = logging.INFO, error: BaseException | None = None, **fields: object) -> None:
    """Write an event to the log."""
    LOGGER.log(level, event, extra={"fields": fields}, exc_info=error)


class Journal:
    """Counts and times of one server."""

    def __init__(self, paths: set[str], waiting: Callable[[], int], loaded: Callable[[], int]) -> None:
        """
        Args:
            paths: the paths that are counted by their own name; others together.
            waiting: lesions in the queue.
            loaded: models in memory.
        """
        self._paths = paths
        self.registry = CollectorRegistry()
        ProcessCollector(registry=self.registry)
        self._requests = Counter(
            "radllm_requests", "Requests answered.", ("path", "method", "status"), registry=self.registry
        )
        self._durations = Histogram(
            "radllm_request_seconds",
            "Time from request to answer.",
            ("path",),
            buckets=_SECONDS,
            registry=self.registry,
        )
        self._lesions = Counter("radllm_lesions", "Lesions scored.", ("model", "call"), registry=self.registry)
        self._batches = Histogram(
            "radllm_batch_lesions", "Lesions scored together.", ("call",), buckets=_BATCHES, registry=self.registry
        )
        self._scoring = Counter("radllm_scoring_seconds", "Time spent on scoring.", ("model",), registry=self.registry)
        Gauge("radllm_waiting_lesions", "Lesions in the queue.", registry=self.registry).set_function(waiting)
        Gauge("radllm_loaded_models", "Models in memory.", registry=self.registry).set_function(loaded)

    def metrics(self) -> bytes:
        """All numbers in Prometheus' text format."""
        return generate_latest(self.registry)

    def batch(self, question: Question, lesions: int, seconds: float) -> None:
        """Note a scored batch."""
        self._lesions.labels(question.model, question.call).inc(lesions)
        self._batches.labels(question.call).observe(lesions)
        self._scoring.labels(question.model).inc(seconds)

    def request(self, scope: Scope, status: int, seconds: float, number: str) -> None:
        """Note a request with its answer's status; 499 where the client did not wait for it."""
        path = scope["path"] if scope["path"] in self._paths else "other"
        method = scope["method"] if scope["method"] in ("GET", "POST") else "other"
        self._requests.labels(path, method, str(status)).inc()
        self._durations.labels(path).observe(seconds)
        level = logging.DEBUG if status < 400 and method == "GET" else logging.INFO
        note("request", level=level, path=path, method=method, status=status, ms=round(1000 * seconds, 1), id=number)


class Recorder:
    """The outermost layer: every request, refused ones too, gets a number and its line."""

    def __init__(self, app: ASGIApp, journal: Journal) -> None:
        self._app, self._journal = app, journal

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        if scope["type"] != "http":
            await self._app(scope, receive, send)
            return
        number, started, status = uuid.uuid4().hex[:12], time.perf_counter(), 499
        scope.setdefault("state", {})["number"] = number

        async def noting(message: Message) -> None:
            nonlocal status
            if message["type"] == "http.response.start":
                status = message["status"]
            await send(message)

        try:
            await self._app(scope, receive, noting)
        finally:
            self._journal.request(scope, status, time.perf_counter() - started, number)
