"""One lesion through every door: the panel both ways, a script, the command line, a server and a batch.

They say the same of the shipped sample by the shipped models. The panel is used by clicks, the others in processes of
their own, with the Python that has the backend's packages.
"""

from __future__ import annotations

import csv
import json
import os
import shutil
import subprocess
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from PIL import Image

from radllm_backend import Features
from radllm_backend.server.local import LocalServer
from Testing.slicer.module_scene import (
    ROOT,
    add_segmentation,
    add_volume,
    choose_backend,
    choose_modality,
    classify,
    opened_panel,
    probabilities,
)
from Testing.slicer.test_module_findings import choose

from RadiomicsLLMLib.backend.BackendPython import GivenPython
from RadiomicsLLMLib.backend.LocalServerBackend import LocalServerBackend

SAMPLES = ROOT / "Resources" / "SampleLesions"
SAMPLE, MASK = SAMPLES / "spiculated.png", SAMPLES / "spiculated_mask.png"
SPACING = 0.08
WORDS = {"lesion_type": "mass", "mass_shape": "irregular", "mass_margins": "spiculated", "subtlety": "5"}
SAME = 1e-6

pytestmark = pytest.mark.usefixtures("smollm2")


@pytest.fixture(scope="module")
def run(backend_python: str) -> Callable[..., str]:
    """What a program prints in the Python with the backend's packages."""

    def run_it(*arguments: object) -> str:
        environment = {**os.environ, "PYTHONPATH": str(ROOT)}
        command = [backend_python, *map(str, arguments)]
        ended = subprocess.run(command, capture_output=True, text=True, env=environment)
        assert ended.returncode == 0, ended.stderr
        return ended.stdout

    return run_it


@pytest.fixture(scope="module")
def served(backend_python: str, tmp_path_factory: pytest.TempPathFactory) -> Iterator[LocalServer]:
    """A server of both models, which somebody started."""
    environment = {
        **os.environ,
        "PYTHONPATH": str(ROOT),
        "XDG_RUNTIME_DIR": str(tmp_path_factory.mktemp("runtime")),
    }
    models = ("--model", "breast-us", "--model", "mammo-descriptors")
    with LocalServer.start(models, python=backend_python, environment=environment) as one:
        yield one


@pytest.fixture
def clicked(backend_python: str) -> Iterator[Any]:
    """A panel whose local server knows the shipped models."""
    server = LocalServerBackend(GivenPython(backend_python))
    yield from opened_panel(server)
    server.close()


def sample_in_the_scene() -> None:
    mask = np.array(Image.open(MASK)) > 0
    add_segmentation(add_volume(np.array(Image.open(SAMPLE)), SPACING), {"lesion": mask})


def choose_shipped(panel: Any, name: str) -> None:
    panel.ui.modelSelector.currentIndex = panel.ui.modelSelector.findData(name)
    assert panel.ui.modelSelector.currentData == name


def by_clicks(panel: Any, name: str, prepare: Callable[[], None]) -> dict[str, float]:
    """What the panel says in this process and by its local server."""
    said = {}
    for backend in ("process", "local"):
        choose_backend(panel, backend)
        choose_shipped(panel, name)
        prepare()
        classify(panel)
        (said[f"panel, {backend}"],) = probabilities()
    return said


def test_an_image_by_breast_us(clicked: Any, run: Callable[..., str], served: LocalServer, tmp_path: Path) -> None:
    sample_in_the_scene()
    said = by_clicks(clicked, "breast-us", lambda: choose_modality(clicked, "US"))

    script = (
        "import sys; from radllm_backend import Lesion, Model, extract; model = Model.load('breast-us'); "
        f"lesion = Lesion.from_files(*sys.argv[1:], modality='US', spacing=({SPACING}, {SPACING})); "
        "features = extract(lesion, model.settings); print(repr(model.predict(features).probability)); "
        "print(features.model_dump_json())"
    )
    probability, measured = run("-c", script, SAMPLE, MASK).splitlines()
    said["script"] = float(probability)

    reading = ("--modality", "US", "--spacing", SPACING)
    run("-m", "radllm_backend", "classify", SAMPLE, MASK, *reading, "--model", "breast-us", "-o", tmp_path / "one")
    said["command line"] = json.loads((tmp_path / "one" / "prediction.json").read_text())["probability"]

    served_model = served.client().model("breast-us")
    said["server"] = served_model.predict(Features.model_validate_json(measured)).probability

    for path in (SAMPLE, MASK):
        shutil.copy(path, tmp_path)
    lines = ["lesion,image,mask,spacing_mm,modality", f"one,{SAMPLE.name},{MASK.name},{SPACING},US"]
    (tmp_path / "manifest.csv").write_text("\n".join(lines) + "\n")
    batch = ("batch", "--manifest", tmp_path / "manifest.csv", "--model", "breast-us", "--workers", 1)
    run("-m", "radllm_backend", *batch, "-o", tmp_path / "all")
    (row,) = csv.DictReader((tmp_path / "all" / "results.csv").open(encoding="utf-8-sig"))
    said["batch"] = float(row["probability"])

    assert len(said) == 6
    assert max(said.values()) - min(said.values()) <= SAME, said


def test_words_by_mammo_descriptors(clicked: Any, run: Callable[..., str], served: LocalServer, tmp_path: Path) -> None:
    """A batch has no words, and refuses the model."""
    sample_in_the_scene()
    said = by_clicks(clicked, "mammo-descriptors", lambda: choose(clicked, "lesion", **WORDS))

    script = (
        "import json, sys; from radllm_backend import Features, Model; "
        "features = Features(values={}, descriptors=json.loads(sys.argv[1])); "
        "print(repr(Model.load('mammo-descriptors').predict(features).probability))"
    )
    said["script"] = float(run("-c", script, json.dumps(WORDS)))

    words = [f"{name}={value}" for name, value in WORDS.items()]
    run("-m", "radllm_backend", "describe", *words, "--model", "mammo-descriptors", "-o", tmp_path / "one")
    said["command line"] = json.loads((tmp_path / "one" / "prediction.json").read_text())["probability"]

    features = Features(values={}, descriptors=WORDS)
    said["server"] = served.client().model("mammo-descriptors").predict(features).probability

    assert len(said) == 5
    assert max(said.values()) - min(said.values()) <= SAME, said
