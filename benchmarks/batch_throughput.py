"""What a second worker brings, and what a batch's main process holds in memory.

    python -m benchmarks.batch_throughput --lesions 100 --rounds 5 --many 5000

Lesions of 300 pixels in full-field mammograms (DICOM files of 4500 x 2700 pixels, lossless JPEG, with masks beside
them) are read and measured by one and by two workers in turn. A tiny model trained on phantoms scores them, because on
two cores a real one would take a core from the workers. Prints lesions a minute, from when the workers are there, and
their ratio; then the peak memory of the main process over a tenth of `--many` small generated lesions and over all of
them. ``--json FILE`` writes the numbers too.
"""

from __future__ import annotations

import argparse
import json
import statistics
import subprocess
import sys
import tempfile
from pathlib import Path

from benchmarks.batch import write_lesions


def main() -> None:
    given = arguments()
    with tempfile.TemporaryDirectory() as folder:
        work = Path(folder)
        model = trained(work)
        rates: dict[int, list[float]] = {1: [], 2: []}
        write_lesions(work, given.lesions)
        files = ("--manifest", work / "manifest.csv")
        for number in range(given.rounds):
            for workers, found in rates.items():
                told = run(model, work / f"rate-{number}-{workers}", given.lesions, workers, *files)
                found.append(told["per_minute"])
                print(f"round {number + 1}, {workers} workers: {found[-1]:.0f} a minute", file=sys.stderr, flush=True)
        counts = (given.many // 10, given.many) if given.many else ()
        peaks = {
            count: run(model, work / f"peak-{count}", count, 2, "--segment", "small")["peak_mb"] for count in counts
        }
    report(rates, peaks, given.json)


def arguments() -> argparse.Namespace:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--lesions", type=int, default=100)
    parser.add_argument("--rounds", type=int, default=5)
    parser.add_argument("--many", type=int, default=5000, help="lesions of the long run; 0: none")
    parser.add_argument("--json", type=Path, help="file for the numbers")
    return parser.parse_args()


def trained(work: Path) -> tuple[Path, Path]:
    """A tiny model and its base model, as the tests have them."""
    from PIL import Image

    from radllm_backend.datasets.manifest import extract_manifest
    from radllm_backend.datasets.phantoms import KINDS, make_phantom
    from radllm_backend.features.extraction import load_settings
    from radllm_backend.features.table import write_table
    from Testing.support import tiny_models

    lines = ["lesion,image,mask,spacing_mm,modality,label,patient"]
    for number in range(24):
        phantom = make_phantom(KINDS[number % 2], seed=number, size=(200, 160))
        Image.fromarray(phantom.image).save(work / f"{number}.png")
        Image.fromarray(phantom.mask).save(work / f"{number}_mask.png")
        label = ("benign", "malignant")[number % 2]
        lines.append(f"{number},{number}.png,{number}_mask.png,{phantom.spacing_mm},US,{label},{number}")
    (work / "phantoms.csv").write_text("\n".join(lines) + "\n")
    write_table(work / "table.csv", extract_manifest(work / "phantoms.csv", load_settings("breast-ultrasound")))
    tiny_models.make_base(work / "base")
    tiny_models.train_cross_validated(work / "table.csv", work / "base", work / "model")
    return work / "model", work / "base"


def run(model: tuple[Path, Path], output: Path, count: int, workers: int, *more: object) -> dict[str, float]:
    """What a run in a process of its own tells: ``per_minute``, and ``peak_mb`` of its main process."""
    from Testing.support.batch_cases import environment

    words = ["run", *model, output, count, "--workers", workers, *more]
    finished = subprocess.run(
        [sys.executable, "-m", "Testing.support.batch_cases", *map(str, words), "--peak"],
        env=environment(),
        check=True,
        capture_output=True,
        text=True,
    )
    summary, told = map(json.loads, finished.stdout.splitlines())
    assert summary["done"] == count, summary
    return dict(told)


def report(rates: dict[int, list[float]], peaks: dict[int, float], file: Path | None) -> None:
    medians = {workers: statistics.median(found) for workers, found in rates.items()}
    ratios = sorted(two / one for one, two in zip(rates[1], rates[2], strict=True))
    for workers, median in medians.items():
        print(f"{workers} worker{'s' if workers > 1 else ''}: {median:.0f} lesions a minute")
    print(f"ratio {statistics.median(ratios):.2f} ({ratios[0]:.2f} to {ratios[-1]:.2f})")
    for count, peak in peaks.items():
        print(f"{count} lesions: peak memory of the main process {peak:.0f} MB")
    if file:
        file.write_text(json.dumps({"per_minute": medians, "ratios": ratios, "peak_mb": peaks}, indent=1) + "\n")


if __name__ == "__main__":
    main()
