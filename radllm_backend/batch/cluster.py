"""The Dask workers that measure a batch: processes of this computer, or those of a cluster that runs already."""

from __future__ import annotations

import gc
import logging
import os
from collections.abc import Iterator, Mapping
from contextlib import contextmanager, suppress
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

from radllm_backend import __version__
from radllm_backend.batch import worker
from radllm_backend.errors import RadllmError

if TYPE_CHECKING:
    from distributed import Client, LocalCluster

_THREADS = ("OMP_NUM_THREADS", "OPENBLAS_NUM_THREADS", "MKL_NUM_THREADS", "ITK_GLOBAL_DEFAULT_NUMBER_OF_THREADS")
_LOCAL = {
    # A lesion whose worker died twice is tried alone before it is given up: one that waited behind it must not suffer.
    "distributed.scheduler.allowed-failures": 1,
    # Nothing of a lesion is written to a disk, and a worker that holds too much is ended, not left to wait.
    "distributed.worker.memory.target": False,
    "distributed.worker.memory.spill": False,
    "distributed.worker.memory.pause": False,
    "distributed.worker.memory.terminate": 0.95,
    "distributed.worker.preload": ["radllm_backend.batch.preload"],
    # Dask lets workers give memory back to the system at once, which clears it anew for each mammogram, and that takes
    # time. And as many threads as processes, and no more.
    "distributed.nanny.pre-spawn-environ": {
        **dict.fromkeys(_THREADS, 1),
        "MALLOC_TRIM_THRESHOLD_": 2**30,
        "MALLOC_MMAP_THRESHOLD_": 2**30,
        "MALLOC_ARENA_MAX": 1,
    },
}
_PROCESSORS = os.cpu_count() or 1
_START_SECONDS = 60
_ANSWER_SECONDS = 10
_CLOSE_SECONDS = 15
_LOGGERS = ("distributed", "tornado", "asyncio")
"""With all below them, to which Dask gives levels of their own."""


@dataclass(frozen=True)
class Place:
    """Where lesions are measured."""

    workers: int | None = None
    """Processes of this computer, one lesion each at a time; None: one a processor."""
    memory: str = "2GB"
    """That a worker of this computer may take; one that takes more is ended, and its lesion fails."""
    scheduler: str | None = None
    """Address of a Dask scheduler (``tcp://HOST:8786``) whose workers are asked instead."""

    @property
    def processes(self) -> int:
        """How many workers this computer has."""
        return 0 if self.scheduler else self.workers or _PROCESSORS

    @property
    def spare_threads(self) -> int:
        """For what happens beside the workers: threads that wait for a processor keep the others of their kind busy.

        At least a third of the processors: of a lesion's work a third is the model's.
        """
        return max(_PROCESSORS - self.processes, _PROCESSORS // 3, 1)

    def check(self) -> None:
        """RadllmError where it cannot be, before any work."""
        try:
            import distributed  # noqa: F401
            import pyarrow  # noqa: F401
            from dask.utils import parse_bytes
        except ImportError as error:
            raise RadllmError(
                f"A batch needs the package {error.name}: pip install 'radllm-backend[batch]'."
            ) from error
        if self.workers is not None and self.workers < 1:
            raise RadllmError(f"--workers is {self.workers}: use 1 or more.")
        try:
            enough = parse_bytes(self.memory) >= 2**28
        except ValueError:
            enough = False
        if not enough:
            raise RadllmError(f"--memory is '{self.memory[:40]}': use a size of 300MB or more, such as 2GB.")


@contextmanager
def connected(place: Place) -> Iterator[Client]:
    """A connection to the workers; those of this computer start and end with it.

    Raises:
        RadllmError: they cannot be started, nobody answers at the address, or its workers have another radllm_backend.
    """
    import dask

    place.check()
    with _quiet():
        if place.scheduler:
            with _remote(place.scheduler) as client:
                _check_versions(client, place.scheduler)
                yield client
            return
        with dask.config.set(_LOCAL), _local(place) as client:
            yield client


def threads(client: Client) -> int:
    """How many lesions the workers measure at the same time, now; at least 1.

    Raises:
        RadllmError: the scheduler is gone.
    """
    try:
        counts: Mapping[str, int] = client.nthreads()
        return max(1, sum(counts.values()))
    except Exception as error:  # of its connection, or of Dask that waits for a new one
        raise scheduler_gone() from error


def scheduler_gone() -> RadllmError:
    """What is said where the scheduler does not answer any more."""
    return RadllmError("The Dask scheduler is gone: start it, and give the same command again; what is done is kept.")


@contextmanager
def _local(place: Place) -> Iterator[Client]:
    from distributed import Client, LocalCluster

    try:
        with _no_collection():
            cluster = LocalCluster(
                n_workers=place.processes,
                threads_per_worker=1,
                processes=True,
                memory_limit=place.memory,
                dashboard_address="127.0.0.1:0",
                worker_dashboard_address=None,
                scheduler_kwargs={"dashboard": False},
                silence_logs=logging.CRITICAL,
                security=True,  # nobody else on this computer can give these workers work
            )
    except Exception as error:  # whatever the system or Dask says
        raise RadllmError(f"The workers cannot be started ({_words(error)}): check --workers and --memory.") from error
    with _no_collection():
        client = Client(cluster)
    try:
        yield client
    finally:
        _close(client, cluster)


@contextmanager
def _remote(address: str) -> Iterator[Client]:
    from distributed import Client

    try:
        with _no_collection():
            client = Client(address, timeout=_ANSWER_SECONDS, set_as_default=False)
    except Exception as error:
        raise RadllmError(
            f"No Dask scheduler answers at {address[:80]} ({_words(error)}): check --scheduler and that it runs."
        ) from error
    try:
        yield client
    finally:
        _close(client)


def _close(*opened: Client | LocalCluster) -> None:
    for each in opened:
        # A worker that dies just then keeps it from closing, but ends with this process.
        with _no_collection(), suppress(Exception):
            each.close(timeout=_CLOSE_SECONDS)


@contextmanager
def _no_collection() -> Iterator[None]:
    """For starting and closing, which hold a lock: a client that is collected meanwhile would wait for it for ever.

    Such are those that could not be connected; Dask closes them when they are collected.
    """
    is_enabled = gc.isenabled()
    gc.disable()
    try:
        yield
    finally:
        if is_enabled:
            gc.enable()


def _check_versions(client: Client, address: str) -> None:
    try:
        client.wait_for_workers(1, timeout=_START_SECONDS)
        found: dict[str, Any] = client.run(worker.package_version)
    except Exception as error:
        raise RadllmError(
            f"The workers of {address[:80]} cannot measure ({_words(error)}): start some that have radllm-backend."
        ) from error
    for place, version in found.items():
        if version != __version__:
            raise RadllmError(
                f"The worker {place} has radllm-backend {version} and this is {__version__}: install the same there."
            )


def _words(error: Exception) -> str:
    return " ".join(str(error).split())[:160].rstrip(".") or type(error).__name__


@contextmanager
def _quiet() -> Iterator[None]:
    """Dask tells of every worker that ends, which has its place in a lesion's row."""
    import distributed  # noqa: F401

    names = [name for name in logging.root.manager.loggerDict if name.split(".")[0] in _LOGGERS]
    loggers = [logging.getLogger(name) for name in {*names, *_LOGGERS}]
    before = [logger.level for logger in loggers]
    for logger in loggers:
        logger.setLevel(logging.CRITICAL)
    try:
        yield
    finally:
        for logger, level in zip(loggers, before, strict=True):
            logger.setLevel(level)
