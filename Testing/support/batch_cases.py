"""What the tests of a batch share: generated lesions, readers of them that fail as asked, and runs to interrupt.

    python -m Testing.support.batch_cases run MODEL BASE OUT COUNT [--workers N] [--scheduler ADDRESS] [--manifest FILE]

runs a batch in a process of its own.
"""

from __future__ import annotations

import argparse
import hashlib
import json
import os
import signal
import sys
import time
from collections import deque
from pathlib import Path
from typing import Any

import numpy as np
import SimpleITK as sitk

from radllm_backend.batch.candidates import Candidate, Found, Refusal
from radllm_backend.batch.cluster import Place
from radllm_backend.batch.results import Row, open_results
from radllm_backend.batch.run import BatchPlan, Step, Summary, run_batch
from radllm_backend.batch.sources import find_in_manifest
from radllm_backend.batch.worker import READER
from radllm_backend.errors import RadllmError
from radllm_backend.imaging.lesion import Lesion
from radllm_backend.models.model import Model

ROOT = Path(__file__).resolve().parents[2]
READ = "Testing.support.batch_cases:read_generated"
READ_BY_WORKERS = "Testing.support.batch_cases:read_by_a_worker"


def candidate(number: int, segment: str = "lesion") -> Candidate:
    """A lesion that no file holds; its segment says how it fails."""
    return Candidate(
        kind="SEG",
        image=("/pacs/Doe^Jane/1.dcm",),
        segmentation="/pacs/Doe^Jane/seg.dcm",
        number=number,
        segment=segment,
        series="1.2.3",
        source="1.2.4",
        modality="US",
        series_description="Generated",
        study_date="20240229",
    )


def found(count: int, segment: str = "lesion") -> Found:
    """So many lesions, all of one kind."""
    return Found(
        candidates=[candidate(number, segment) for number in range(count)],
        refusals=[Refusal(what="Series <b>7</b>", reason="It has no segmentation: segment it first.", modality="US")],
    )


def read_generated(chosen: Candidate) -> Lesion:
    """A disc in noise, the same for the same number; or what its segment says."""
    _fail(chosen)
    assert chosen.number is not None
    chance = np.random.default_rng(chosen.number)
    middle = 12
    radius = chance.uniform(0.4, 0.75) * middle
    rows, columns = np.mgrid[: 2 * middle, : 2 * middle]
    mask = ((rows - middle) ** 2 + (columns - middle) ** 2 < radius**2).astype(np.uint8)
    grey = chance.integers(40, 90, mask.shape) + 60 * mask
    return Lesion.from_images(
        sitk.GetImageFromArray(grey.astype(np.uint8)), sitk.GetImageFromArray(mask), modality="US", spacing_known=True
    )


def read_by_a_worker(chosen: Candidate) -> Lesion:
    """The same, and an error in any process that is no Dask worker."""
    from distributed import get_worker

    get_worker()
    return read_generated(chosen)


def _fail(chosen: Candidate) -> None:
    match chosen.segment:
        case "slow":
            time.sleep(0.02)
        case "vanished":
            raise RadllmError(f"{chosen.segmentation} is gone: put it back.")
        case "strange":
            raise ZeroDivisionError("one part\nand another in /pacs/Doe^Jane/seg.dcm")
        case "killed":
            os.kill(os.getpid(), signal.SIGKILL)
        case "greedy":
            hoard = [np.ones(2**24) for _ in range(64)]  # 8 GB
            raise AssertionError(f"{len(hoard)} parts were not too much")


def plan(model: Model, output: Path, source: Found, **more: Any) -> BatchPlan:
    given: dict[str, Any] = {"place": Place(workers=2, memory="1GB"), "read": READ, **more}
    return BatchPlan(found=source, model=model, output=output, card=getattr(model, "card", None), **given)


def kept(output: Path, model: Model) -> list[Row]:
    """All rows of this model."""
    with open_results(output / "results.sqlite") as results:
        return list(results.rows(model.settings.sha256, model.sha256))


def told(rows: list[Row]) -> list[str]:
    """What the rows say, but for the time that it took."""
    return [row.model_copy(update={"seconds": 0.0}).model_dump_json() for row in rows]


def digest(rows: list[Row]) -> str:
    return hashlib.sha256("\n".join(told(rows)).encode()).hexdigest()


def environment() -> dict[str, str]:
    """Of a process that finds this file."""
    return {**os.environ, "PYTHONPATH": str(ROOT), "OMP_NUM_THREADS": "1"}


def _arguments() -> argparse.Namespace:
    parser = argparse.ArgumentParser()
    parser.add_argument("what", choices=["run"])
    for name in ("model", "base", "output"):
        parser.add_argument(name, type=Path)
    parser.add_argument("count", type=int)
    parser.add_argument("--workers", type=int)
    parser.add_argument("--scheduler")
    parser.add_argument("--segment", default="lesion")
    parser.add_argument("--manifest", type=Path, help="of lesions in files, instead of generated ones")
    parser.add_argument("--peak", action="store_true", help="also print this process's peak memory, and the rate")
    return parser.parse_args()


def _run(given: argparse.Namespace) -> tuple[Summary, float]:
    """How it ended, and lesions a minute once the workers were there."""
    place = Place(workers=given.workers, scheduler=given.scheduler, memory="1GB")
    source, read = found(given.count, given.segment), READ
    if given.manifest:
        source, read = find_in_manifest(given.manifest), READER
    chosen = plan(Model.load(given.model, given.base), given.output, source, place=place, read=read)
    steps: deque[Step] = deque(maxlen=1)
    summary = run_batch(chosen, steps.append)
    return summary, steps[0].rate if steps else 0.0


def _peak_mb() -> float:
    """Of this process: `getrusage` tells its parent's where that is higher."""
    status = Path("/proc/self/status").read_text()
    return int(status.split("VmHWM:")[1].split()[0]) / 1000


if __name__ == "__main__":
    given = _arguments()
    summary, rate = _run(given)
    print(summary.model_dump_json())
    if given.peak:
        print(json.dumps({"peak_mb": _peak_mb(), "per_minute": rate}))
    sys.exit(130 if summary.stopped else 0)
