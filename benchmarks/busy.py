"""A prediction while other programs keep every core busy, as Slicer does, beside the same on the machine as it is."""

from __future__ import annotations

import contextlib
import itertools
import os
import subprocess
import sys
import time
from collections.abc import Iterator
from pathlib import Path

from benchmarks.comparison import Comparison, Tell, in_turn
from benchmarks.scoring import MODEL, different_lesions
from benchmarks.trees import last_line, this_tree
from radllm_backend.errors import RadllmError
from radllm_backend.models.bundle import read_bundle
from radllm_backend.records import Features

_WANTED = 1 / 3
"""At most three times as long."""
_SETTLE_SECONDS = 1.0
_PREDICT = """
import sys, time
from radllm_backend.models.model import Model
from radllm_backend.records import Features
model = Model.load(sys.argv[1])
model.warm_up()
for line in sys.stdin:
    lesion = Features.model_validate_json(line)
    begun = time.perf_counter()
    model.predict(lesion)
    print(time.perf_counter() - begun, flush=True)
"""


def comparisons(runs: int, work: Path, tell: Tell) -> Iterator[Comparison]:
    """One comparison, of a lesion with its reasons in a process that has the model; RadllmError without base model."""
    tell(f"a prediction on the machine as it is and with every core busy, {runs} rounds")
    lesions = itertools.cycle(lesion for _, lesion in different_lesions(read_bundle(MODEL).card, runs + 1))
    with warm_process() as process:

        def both() -> tuple[float, float]:
            lesion = next(lesions)
            alone = predict(process, lesion)
            with busy_cores():
                return alone, predict(process, lesion)

        rounds, loads = in_turn([both], runs, warm_up=True)
    alone, busy = zip(*(times for (times,) in rounds), strict=True)
    yield Comparison(
        subject="busy",
        case=f"a prediction with its reasons, {MODEL}, in a process that has the model, while {_cores()} other "
        "processes keep every core busy",
        usual="the same lesion without them",
        usual_values=alone,
        values=busy,
        wanted=_WANTED,
        note="0.333 is three times as long",
        loads=loads,
    )


@contextlib.contextmanager
def warm_process() -> Iterator[subprocess.Popen[bytes]]:
    """A process of this tree that has the model, and predicts each lesion that `predict` gives it."""
    tree, pipe = this_tree(), subprocess.PIPE
    command = tree.command("-c", _PREDICT, MODEL)
    with subprocess.Popen(command, env=tree.environment(), bufsize=0, stdin=pipe, stdout=pipe, stderr=pipe) as process:
        try:
            yield process
        finally:
            process.kill()


def predict(process: subprocess.Popen[bytes], lesion: Features) -> float:
    """Seconds of a prediction in a `warm_process`; RadllmError, with its last words, where it ended."""
    assert process.stdin
    assert process.stdout
    assert process.stderr
    with contextlib.suppress(BrokenPipeError):  # it has ended: its last words tell why
        process.stdin.write(lesion.model_dump_json().encode() + b"\n")
    line = process.stdout.readline()
    if not line:
        raise RadllmError(f"The prediction failed: {last_line(process.stderr.read().decode())}")
    return float(line)


@contextlib.contextmanager
def busy_cores() -> Iterator[None]:
    """As many other processes as there are cores, each of which keeps one busy, at the usual priority."""
    with contextlib.ExitStack() as stack:
        for _ in range(_cores()):
            spinning = stack.enter_context(subprocess.Popen([sys.executable, "-I", "-c", "while True: pass"]))
            stack.callback(spinning.kill)
        time.sleep(_SETTLE_SECONDS)
        yield


def _cores() -> int:
    return os.cpu_count() or 1
