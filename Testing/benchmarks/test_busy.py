"""A machine that others keep busy, and a process that has the model."""

from __future__ import annotations

import os
import subprocess
import sys
import time

import pytest

from benchmarks import busy
from radllm_backend.errors import RadllmError
from radllm_backend.records import Features

LESION = Features(values={"original_shape_Sphericity": 0.5})


def test_every_core_is_busy_inside_and_no_longer_afterwards(monkeypatch: pytest.MonkeyPatch) -> None:
    started: list[subprocess.Popen[bytes]] = []
    start = subprocess.Popen

    def noted(*given, **options):
        started.append(start(*given, **options))
        return started[-1]

    monkeypatch.setattr(subprocess, "Popen", noted)
    with busy.busy_cores():
        assert len(started) == (os.cpu_count() or 1)
        time.sleep(0.2)
        assert all(one.poll() is None for one in started)
    assert all(one.poll() is not None for one in started)


def test_a_prediction_is_timed_where_it_is_made(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(busy, "_PREDICT", "import sys\nfor line in sys.stdin: print(len(line), flush=True)")
    with busy.warm_process() as process:
        assert busy.predict(process, LESION) == len(LESION.model_dump_json()) + 1
        assert busy.predict(process, LESION) > 0
    assert process.poll() is not None


@pytest.mark.parametrize("code", ["import sys; sys.exit('no base model')", "import sys; input(); 1 / 0"])
def test_a_process_that_ends_tells_why(monkeypatch: pytest.MonkeyPatch, code: str) -> None:
    monkeypatch.setattr(busy, "_PREDICT", code)
    with busy.warm_process() as process:
        if "exit" in code:
            process.wait()
        with pytest.raises(RadllmError, match="The prediction failed: (no base model|ZeroDivisionError)"):
            busy.predict(process, LESION)


def test_the_process_predicts_with_the_shipped_model(monkeypatch: pytest.MonkeyPatch) -> None:
    """The script that it runs is for this package: without a base model it says so."""
    monkeypatch.setenv("RADLLM_CACHE", os.devnull + "/none")
    with busy.warm_process() as process, pytest.raises(RadllmError, match="run `radllm models pull"):
        busy.predict(process, LESION)
    assert sys.executable in process.args
