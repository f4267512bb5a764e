"""A batch that is ended at any time: killed, with its workers or without, or asked to stop."""

from __future__ import annotations

import json
import os
import random
import signal
import sqlite3
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from contextlib import closing
from pathlib import Path

import pytest

from Testing.support.batch_cases import digest, environment, found, kept, plan

pytest.importorskip("torch")
pytest.importorskip("radiomics")
pytest.importorskip("distributed")
pytest.importorskip("pyarrow")
psutil = pytest.importorskip("psutil")

from radllm_backend.batch.run import run_batch
from radllm_backend.models.model import Model

pytestmark = pytest.mark.alone
LESIONS = int(os.environ.get("RADLLM_BATCH_LESIONS", "150"))
"""Of the run that is killed again and again."""


@pytest.fixture(scope="module")
def model(tiny_model: Path, tiny_base: Path) -> Model:
    return Model.load(tiny_model, tiny_base)


@pytest.fixture
def start(tiny_model: Path, tiny_base: Path) -> Iterator[Callable[..., subprocess.Popen[str]]]:
    started: list[subprocess.Popen[str]] = []

    def starting(output: Path, count: int) -> subprocess.Popen[str]:
        command = [sys.executable, "-m", "Testing.support.batch_cases", "run", tiny_model, tiny_base, output, count]
        process = subprocess.Popen(
            [*map(str, command), "--workers", "2", "--segment", "slow"],
            env=environment(),
            stdout=subprocess.PIPE,
            text=True,
            start_new_session=True,
        )
        started.append(process)
        return process

    yield starting
    for process in started:
        process.kill()
        process.wait()


def rows_in(output: Path) -> int:
    """How many there are, as anybody may look meanwhile."""
    try:
        with closing(sqlite3.connect(f"file:{output / 'results.sqlite'}?mode=ro", uri=True)) as connection:
            return int(connection.execute("SELECT COUNT(*) FROM results").fetchone()[0])
    except sqlite3.Error:
        return 0


def wait_for_rows(process: subprocess.Popen[str], output: Path, more_than: int) -> None:
    until = time.monotonic() + 120
    while rows_in(output) <= more_than and process.poll() is None:
        assert time.monotonic() < until
        time.sleep(0.02)


def workers_of(process: subprocess.Popen[str]) -> list[int]:
    """The processes that measure."""
    found_workers = [
        child.pid
        for child in psutil.Process(process.pid).children(recursive=True)
        if "spawn_main" in " ".join(child.cmdline())
    ]
    return sorted(found_workers)


@pytest.mark.timeout(3600)
def test_killed_at_any_time_it_loses_nothing_and_doubles_nothing(start, model: Model, tmp_path: Path) -> None:
    undisturbed = tmp_path / "undisturbed"
    run_batch(plan(model, undisturbed, found(LESIONS, "slow")))
    output, chance = tmp_path / "killed", random.Random(LESIONS)
    for part in range(3):
        process = start(output, LESIONS)
        wait_for_rows(process, output, rows_in(output))
        time.sleep(chance.random() * LESIONS / 1600)
        if part < 2:
            os.kill(chance.choice(workers_of(process)), signal.SIGKILL)
            time.sleep(chance.random() * LESIONS / 1600)
        process.kill()
        process.wait()
    before = rows_in(output)
    assert 0 < before < LESIONS
    process = start(output, LESIONS)
    told_last, _ = process.communicate(timeout=1800)
    summary = json.loads(told_last)
    assert (summary["kept"], summary["done"], summary["failed"]) == (before, LESIONS - before, 0)
    rows = kept(output, model)
    assert len(rows) == LESIONS
    assert digest(rows) == digest(kept(undisturbed, model))
    for name in ("results.csv", "results.parquet"):
        assert (output / name).stat().st_size


@pytest.mark.parametrize("number", [signal.SIGINT, signal.SIGTERM])
def test_a_signal_ends_it_cleanly_with_what_is_done_kept(start, tmp_path: Path, number: signal.Signals) -> None:
    process = start(tmp_path / "out", 2000)
    wait_for_rows(process, tmp_path / "out", 3)
    workers = workers_of(process)
    if number == signal.SIGINT:
        os.killpg(process.pid, number)  # as a terminal does, to the workers as well
    else:
        process.send_signal(number)
    told_last, _ = process.communicate(timeout=60)
    summary = json.loads(told_last)
    assert process.returncode == 130
    assert summary["stopped"]
    assert summary["done"] == rows_in(tmp_path / "out") > 3
    assert not any(Path(f"/proc/{worker}").exists() for worker in workers)
