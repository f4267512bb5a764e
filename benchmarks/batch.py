"""Many lesions in full-field mammograms: `radllm batch` with two workers against a loop over them."""

from __future__ import annotations

import csv
import os
import statistics
import time
from collections.abc import Iterator, Sequence
from pathlib import Path

import numpy as np
import SimpleITK as sitk
from numpy.typing import NDArray
from pydicom.uid import JPEGLosslessSV1

from benchmarks.comparison import QUICK, Comparison, Tell
from benchmarks.mammograms import FULL_FIELD, generated_mammogram, write_mammogram
from radllm_backend.batch.candidates import Found
from radllm_backend.batch.cluster import Place
from radllm_backend.batch.run import run_batch
from radllm_backend.batch.scoring import BatchPlan
from radllm_backend.batch.sources import find_in_manifest
from radllm_backend.features.extraction import extract
from radllm_backend.imaging.lesion import Lesion
from radllm_backend.models.model import Model
from radllm_backend.records import Features

WANTED = 12
_MODEL = "breast-us"
_IMAGES = 8
_ACROSS = 300
_IN_TURN = 10
"""Lesions that the loop goes over in a round: one takes as long as the other."""
Lesions = Sequence[tuple[Path, Path]]
"""Files of image and mask."""


def comparisons(runs: int, work: Path, tell: Tell) -> Iterator[Comparison]:
    """Seconds a lesion of both ways, from the files to the row with its probability, start and tables included.

    Raises:
        RadllmError: the model's base model was not pulled, or a package is missing.
    """
    count, in_turn = (6, 2) if os.environ.get(QUICK) else (200, _IN_TURN)
    model = Model.load(_MODEL)
    tell(f"batch: writing {count} mammograms and masks")
    lesions = write_lesions(work, count)
    found = find_in_manifest(work / "manifest.csv")
    loop, together = [], []
    for number in range(runs + 1):  # the first round does not count
        tell(f"batch: round {number} of {runs}")
        loop.append(_seconds_in_a_loop(lesions[:in_turn], model) / in_turn)
        together.append(_seconds_together(found, model, work / f"out{number}") / count)
    yield Comparison(
        subject="batch",
        case=f"{count} lesions of {_ACROSS} px in full-field mammograms (lossless JPEG), seconds a lesion, two workers",
        usual=f"a loop of execute(image_path, mask_path) and the model, over {in_turn} of them",
        usual_values=tuple(loop[1:]),
        values=tuple(together[1:]),
        wanted=WANTED,
        note=f"with the workers' start and the tables at the end; {_bound(lesions, model)}",
    )


def write_lesions(work: Path, count: int) -> Lesions:
    """A mammogram and a mask for each lesion, some 10 MB, and ``manifest.csv`` of them."""
    shape = (450, 270) if os.environ.get(QUICK) else FULL_FIELD
    images = [generated_mammogram(shape, number) for number in range(min(count, _IMAGES))]
    random, lesions = np.random.default_rng(0), []
    for number in range(count):
        lesions.append((work / f"mammogram{number}.dcm", work / f"mask{number}.nrrd"))
        image = images[number % len(images)]
        image[0, 0] = number  # no two are the same, so that nothing that is remembered of one helps the next
        write_mammogram(lesions[-1][0], image, JPEGLosslessSV1)
        mask = sitk.GetImageFromArray(_disc(shape, random)[np.newaxis])
        mask.SetSpacing((0.05, 0.05, 1))
        sitk.WriteImage(mask, str(lesions[-1][1]), useCompression=True)
    with (work / "manifest.csv").open("w", newline="") as file:
        writer = csv.writer(file)
        writer.writerow(["lesion", "image", "mask", "modality"])
        writer.writerows([f"lesion{number}", *map(str, pair), "MG"] for number, pair in enumerate(lesions))
    return lesions


def _disc(shape: tuple[int, int], random: np.random.Generator) -> NDArray[np.uint8]:
    """Somewhere in the breast."""
    radius = _ACROSS // 2 * shape[0] // FULL_FIELD[0]
    row, column = shape[0] // 2 + random.integers(-radius, radius), shape[1] // 3 + random.integers(-radius, radius)
    rows, columns = np.ogrid[: shape[0], : shape[1]]
    return ((rows - row) ** 2 + (columns - column) ** 2 <= radius**2).astype(np.uint8)


def _seconds_together(found: Found, model: Model, output: Path) -> float:
    begun = time.perf_counter()
    summary = run_batch(BatchPlan(found=found, model=model, output=output, place=Place(workers=2)))
    assert summary.done == len(found.candidates), summary
    return time.perf_counter() - begun


def _seconds_in_a_loop(lesions: Lesions, model: Model) -> float:
    from radiomics.featureextractor import RadiomicsFeatureExtractor

    parameters = model.settings.parameters
    general = {**(parameters.get("setting") or {}), "force2D": True}
    extractor = RadiomicsFeatureExtractor({**parameters, "setting": general})
    begun = time.perf_counter()
    for image, mask in lesions:
        found = extractor.execute(str(image), str(mask))
        values = {name: float(value) for name, value in found.items() if not name.startswith("diagnostics_")}
        model.predict(Features(values=values), explain=False)
    return time.perf_counter() - begun


def _bound(lesions: Lesions, model: Model) -> str:
    """What a lesion's time goes to, in one process."""
    steps: list[tuple[float, float, float]] = []
    for image, mask in lesions[:_IMAGES]:
        begun = time.perf_counter()
        lesion = Lesion.from_files(image, mask, modality="MG")
        read = time.perf_counter()
        features = extract(lesion, model.settings)
        measured = time.perf_counter()
        model.predict(features, explain=False)
        steps.append((read - begun, measured - read, time.perf_counter() - measured))
    reading, measuring, scoring = (statistics.median(each) for each in zip(*steps, strict=True))
    return f"alone a lesion takes {reading:.2f} s to read, {measuring:.2f} s to measure and {scoring:.2f} s to score"
