"""From a click on Classify to the result and its report, against the features alone as SlicerRadiomics makes them.

    python -m benchmarks.click_to_result --rounds 5

A lesion of 300 pixels in a generated full-field mammogram, which is read from DICOM into the scene of the Slicer
harness. Both ways start from the scene, in turn, each round with another image and lesion:

* ours: a click on Classify with the model breast-us on a warm local server, until the result is in the scene; then a
  click on Export report (JSON, CSV, page, PDF and key image), until all files are written;
* SlicerRadiomics' way: the segment as a label map, both written as NRRD files, a spawned process that measures all
  features of them by PyRadiomics and writes them to a CSV file, and that file read back.

Needs the base model (``radllm models pull``). Prints a table; ``--json FILE`` writes the seconds of every round too.
"""

from __future__ import annotations

import argparse
import csv
import json
import os
import statistics
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

ROOT = Path(__file__).resolve().parents[1]
BACKEND_PYTHON = os.environ.setdefault("RADLLM_BACKEND_PYTHON", sys.executable)

import numpy as np
import pydicom
import SimpleITK as sitk
from numpy.typing import NDArray
from pydicom.uid import ExplicitVRLittleEndian

from benchmarks.comparison import QUICK, Comparison, machine, table
from benchmarks.mammograms import FULL_FIELD, generated_mammogram, write_mammogram
from radllm_backend.cli.support import check_output_file
from radllm_backend.errors import RadllmError
from radllm_backend.imaging.image_files import read_image
from radllm_backend.models.bundle import read_bundle
from radllm_backend.server.client import RemoteModel
from Testing.slicer import module_scene
from Testing.slicer.module_scene import click, finish, slicer

MODEL, ACROSS, WANTED = "breast-us", 300, 2
FORMATS = ("json", "csv", "html", "pdf", "png")
_MEASURE = """
import csv, sys
from radiomics.featureextractor import RadiomicsFeatureExtractor
image, mask, parameters, output = sys.argv[1:]
found = RadiomicsFeatureExtractor(parameters).execute(image, mask)
with open(output, "w", newline="") as file:
    csv.writer(file).writerows(found.items())
"""


def main() -> None:
    given = arguments()
    with tempfile.TemporaryDirectory(prefix="radllm-bench-") as folder, opened_panel() as panel:
        work = Path(folder)
        found = measured(panel, work, given.rounds)
    if given.json:
        content = {"machine": machine(), "comparisons": [found.model_dump()]}
        given.json.write_text(json.dumps(content, indent=1) + "\n", encoding="utf-8")
    print(table([found]), end="")


def arguments() -> argparse.Namespace:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--rounds", type=int, default=5, help="that count; one before them does not")
    parser.add_argument("--json", type=Path, help="file for every round's seconds")
    given = parser.parse_args()
    if given.rounds < 1:
        parser.error(f"--rounds is {given.rounds}: use 1 or more.")
    try:
        if given.json:
            check_output_file(given.json)
    except RadllmError as error:
        parser.error(str(error))
    return given


@contextmanager
def opened_panel() -> Iterator[Any]:
    """The module's panel; its local server ends with it."""
    from RadiomicsLLMLib import LocalServerBackend
    from RadiomicsLLMLib.backend.BackendPython import GivenPython

    yield from module_scene.opened_panel(LocalServerBackend(GivenPython(BACKEND_PYTHON)))


def measured(panel: Any, work: Path, rounds: int) -> Comparison:
    """Both ways in turn, after a round that starts the server and does not count."""
    volume = load_mammogram(work / "mammogram.dcm")
    segmentation = module_scene.add_segmentation(volume, {"lesion": lesion(volume, 0)})
    module_scene.choose_backend(panel, "local")
    panel.ui.modelSelector.currentIndex = panel.ui.modelSelector.findData(MODEL)
    choose_reports(panel, work / "reports")
    parameters = usual_parameters(work / "parameters.json")
    usual, results, all_of_it = [], [], []
    answers = note_answers()
    for number in range(rounds + 1):
        print(f"round {number} of {rounds}", file=sys.stderr, flush=True)
        show_another(segmentation, volume, number)
        usual.append(seconds(lambda: usual_way(volume, segmentation, parameters, work)))
        results.append(seconds(lambda: classify(panel)))
        all_of_it.append(results[-1] + seconds(lambda: export(panel)))
    columns, rows = volume.GetImageData().GetDimensions()[:2]
    return Comparison(
        subject="click-to-result",
        case=f"lesion of {ACROSS} px in a mammogram of {columns} × {rows} (DICOM, 16 bits), {MODEL}, warm local server",
        usual="SlicerRadiomics' way for its features alone: NRRD files, a spawned process, CSV",
        usual_values=tuple(usual[1:]),
        values=tuple(all_of_it[1:]),
        wanted=WANTED,
        note=f"with the report as {', '.join(FORMATS)}; the result in the scene alone takes "
        f"{statistics.median(results[1:]):.2f} s, of which the server takes {statistics.median(answers[1:]):.2f} s for "
        "the probability and its reasons",
    )


def note_answers() -> list[float]:
    """The seconds of each answer of the server from now on, as they come."""
    found: list[float] = []
    predict = RemoteModel.predict

    def timed(self: RemoteModel, *given: Any, **options: Any) -> Any:
        begun = time.perf_counter()
        answer = predict(self, *given, **options)
        found.append(time.perf_counter() - begun)
        return answer

    # For the rest of this process, which does nothing else.
    RemoteModel.predict = timed  # type: ignore[method-assign]
    return found


def seconds(work: Callable[[], object]) -> float:
    begun = time.perf_counter()
    work()
    return time.perf_counter() - begun


# --- the scene ------------------------------------------------------------------------------------------------------


def load_mammogram(file: Path) -> Any:
    """A generated mammogram's volume with what Slicer's DICOM plugins note of it."""
    shape = (450, 270) if os.environ.get(QUICK) else FULL_FIELD
    write_mammogram(file, generated_mammogram(shape), ExplicitVRLittleEndian)
    image, header = read_image(file).pixels, pydicom.dcmread(file, stop_before_pixels=True)
    volume = module_scene.add_volume(sitk.GetArrayFromImage(image), image.GetSpacing()[0])
    volume.SetAttribute("DICOM.instanceUIDs", header.SOPInstanceUID)
    hierarchy = slicer.vtkMRMLSubjectHierarchyNode.GetSubjectHierarchyNode(slicer.mrmlScene)
    item = hierarchy.CreateItem(hierarchy.GetSceneItemID(), volume)
    hierarchy.SetItemUID(item, slicer.vtkMRMLSubjectHierarchyConstants.GetDICOMUIDName(), header.SeriesInstanceUID)
    modality = slicer.vtkMRMLSubjectHierarchyConstants.GetDICOMSeriesModalityAttributeName()
    hierarchy.SetItemAttribute(item, modality, header.Modality)
    return volume


def lesion(volume: Any, number: int) -> NDArray[np.bool_]:
    """A disc somewhere in the breast, another one for each number."""
    rows, columns = slicer.util.arrayFromVolume(volume).shape[1:]
    random, radius = np.random.default_rng(number), ACROSS / 2 * rows / FULL_FIELD[0]
    row, column = rows / 2 + random.uniform(-radius, radius), columns / 3 + random.uniform(-radius, radius)
    y, x = np.ogrid[:rows, :columns]
    inside: NDArray[np.bool_] = (y - row) ** 2 + (x - column) ** 2 <= radius**2
    return inside


def show_another(segmentation: Any, volume: Any, number: int) -> None:
    """Another image, by one pixel, and another lesion: nothing that is remembered of the last ones helps."""
    slicer.util.arrayFromVolume(volume)[0, 0, 0] = number
    slicer.util.arrayFromVolumeModified(volume)
    voxels = lesion(volume, number).astype(np.uint8)[np.newaxis]
    slicer.util.updateSegmentBinaryLabelmapFromArray(voxels, segmentation, "lesion", volume)
    slicer.app.processEvents()


# --- both ways ------------------------------------------------------------------------------------------------------


def choose_reports(panel: Any, folder: Path) -> None:
    panel.ui.exportFolderEdit.currentPath = str(folder)
    for name in FORMATS:
        getattr(panel.ui, f"{name}Box").checked = True


def classify(panel: Any) -> None:
    module_scene.classify(panel)
    results = panel.panel.results.results
    if not results or results[0].problem:
        raise SystemExit(results[0].problem if results else panel.ui.statusLabel.text)


def export(panel: Any) -> None:
    click(panel.ui.exportButton)
    finish(panel)
    if not panel.ui.statusLabel.text.startswith("Exported"):
        raise SystemExit(panel.ui.statusLabel.text)


def usual_parameters(file: Path) -> Path:
    """The model's own settings, but for what only this package does (intensities from 0 to 1)."""
    settings = read_bundle(MODEL).card.extraction_settings()
    assert settings is not None
    general = {**settings.parameters.get("setting", {}), "force2D": True}  # a mammogram in the scene has one slice
    file.write_text(json.dumps({**settings.parameters, "setting": general}), encoding="utf-8")
    return file


def usual_way(volume: Any, segmentation: Any, parameters: Path, work: Path) -> dict[str, str]:
    """Features by name, as a command-line module of Slicer computes them."""
    image, mask, output = (work / name for name in ("image.nrrd", "mask.nrrd", "features.csv"))
    label_map = slicer.mrmlScene.AddNewNodeByClass("vtkMRMLLabelMapVolumeNode")
    slicer.modules.segmentations.logic().ExportVisibleSegmentsToLabelmapNode(segmentation, label_map, volume)
    for node, file in ((volume, image), (label_map, mask)):
        write_nrrd(node, file)
    slicer.mrmlScene.RemoveNode(label_map)
    subprocess.run([sys.executable, "-c", _MEASURE, image, mask, parameters, output], check=True)
    with output.open(newline="") as rows:
        return {row[0]: row[1] for row in csv.reader(rows)}


def write_nrrd(node: Any, file: Path) -> None:
    """Uncompressed, as Slicer writes what it gives to a command-line module."""
    file.unlink(missing_ok=True)
    storage = slicer.vtkMRMLVolumeArchetypeStorageNode()
    storage.SetFileName(str(file))
    storage.SetUseCompression(False)
    assert storage.WriteData(node)


if __name__ == "__main__":
    main()
