"""A batch on a Dask cluster that runs already: a scheduler and workers in folders of their own, one of them killed."""

from __future__ import annotations

import os
import signal
import socket
import subprocess
import sys
import threading
import time
from collections.abc import Iterator
from pathlib import Path

import pytest

from Testing.support.batch_cases import digest, environment, found, kept, plan

pytest.importorskip("torch")
pytest.importorskip("radiomics")
pytest.importorskip("distributed")
pytest.importorskip("pyarrow")

from radllm_backend.batch import cluster as batch_cluster
from radllm_backend.batch.cluster import Place
from radllm_backend.batch.run import run_batch
from radllm_backend.errors import RadllmError
from radllm_backend.models.model import Model

LESIONS = 80


def dask(folder: Path, *words: object) -> subprocess.Popen[bytes]:
    """A part of Dask in a process group and a working folder of its own."""
    folder.mkdir()
    command = [sys.executable, "-m", "dask", *map(str, words)]
    return subprocess.Popen(
        command,
        cwd=folder,
        env=environment(),
        start_new_session=True,
        stdout=subprocess.DEVNULL,
        stderr=subprocess.DEVNULL,
    )


def end(process: subprocess.Popen[bytes]) -> None:
    """It and all that it started, at once."""
    if process.poll() is None:
        os.killpg(process.pid, signal.SIGKILL)
    process.wait()


pytestmark = pytest.mark.alone


@pytest.fixture
def scheduler(tmp_path: Path) -> Iterator[str]:
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        port = probe.getsockname()[1]
    process = dask(tmp_path / "scheduler", "scheduler", "--host", "127.0.0.1", "--port", port, "--no-dashboard")
    yield f"tcp://127.0.0.1:{port}"
    end(process)


@pytest.fixture
def workers(scheduler: str, tmp_path: Path) -> Iterator[list[subprocess.Popen[bytes]]]:
    """Two, each with a nanny, in folders of their own."""
    common = ("worker", scheduler, "--nthreads", 1, "--memory-limit", "1GB", "--no-dashboard")
    started = [dask(tmp_path / f"worker{number}", *common) for number in range(2)]
    yield started
    for process in started:
        end(process)


@pytest.fixture(scope="module")
def model(tiny_model: Path, tiny_base: Path) -> Model:
    return Model.load(tiny_model, tiny_base)


def test_a_run_outlives_a_worker_that_is_killed_for_good(scheduler: str, workers, model: Model, tmp_path: Path) -> None:
    killed = threading.Event()

    def kill_one(step) -> None:
        if step.settled >= LESIONS // 4 and not killed.is_set():
            killed.set()
            os.killpg(workers[0].pid, signal.SIGKILL)

    place = Place(scheduler=scheduler)
    summary = run_batch(plan(model, tmp_path / "cluster", found(LESIONS), place=place), kill_one)
    assert killed.is_set()
    assert (summary.done, summary.failed) == (LESIONS, 0)
    run_batch(plan(model, tmp_path / "here", found(LESIONS)))
    assert digest(kept(tmp_path / "cluster", model)) == digest(kept(tmp_path / "here", model))


def test_a_scheduler_that_goes_away_ends_the_run_with_what_is_done(scheduler: str, workers, model, tmp_path) -> None:
    import psutil

    def kill_scheduler(step) -> None:
        if step.settled >= 5:
            port = int(scheduler.rpartition(":")[2])
            for process in psutil.Process().children(recursive=True):
                if str(port) in process.cmdline() and "scheduler" in process.cmdline():
                    process.kill()

    begun = time.monotonic()
    with pytest.raises(RadllmError, match="scheduler .* same command again; what is done is kept"):
        run_batch(plan(model, tmp_path / "out", found(2000), place=Place(scheduler=scheduler)), kill_scheduler)
    assert time.monotonic() - begun < 60
    assert len(kept(tmp_path / "out", model)) >= 5


def test_workers_that_cannot_measure_are_a_sentence(scheduler: str, workers, model, tmp_path, monkeypatch) -> None:
    monkeypatch.setattr(batch_cluster, "__version__", "0.0.1")
    with pytest.raises(RadllmError, match="The worker .* has radllm-backend .* and this is 0.0.1: install the same"):
        run_batch(plan(model, tmp_path / "out", found(2), place=Place(scheduler=scheduler)))


def test_a_scheduler_without_workers_is_a_sentence(scheduler: str, model, tmp_path, monkeypatch) -> None:
    monkeypatch.setattr(batch_cluster, "_START_SECONDS", 12)
    with pytest.raises(RadllmError, match="The workers of tcp://.* cannot measure"):
        run_batch(plan(model, tmp_path / "out", found(2), place=Place(scheduler=scheduler)))
