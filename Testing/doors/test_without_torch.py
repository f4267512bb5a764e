"""Reading needs no torch: every command that reads runs where torch, transformers, peft and accelerate cannot be had.

Twice: with this Python's packages, where an import of one of them is noted and fails, in every process that a command
starts; and in a virtual environment of its own, into which pip put the package with every extra but ``training``.
"""

from __future__ import annotations

import csv
import json
import os
import shutil
import subprocess
import sys
import textwrap
import venv
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

import pytest

pytest.importorskip("torch", reason="the models are trained here")
pytest.importorskip("radiomics")
pytest.importorskip("uvicorn")
pytest.importorskip("distributed")

from radllm_backend import Model
from radllm_backend.features.table import read_table
from radllm_backend.server.local import LocalServer
from Testing.support.base_models import write_gguf

ROOT = Path(__file__).resolve().parents[2]
NEVER = ("torch", "transformers", "peft", "accelerate")
EXTRAS = "extraction,dicom,server,batch"
ULTRASOUND = ("--modality", "US", "--spacing", "0.08")
WORDS = ("lesion_type=mass", "mass_shape=irregular", "mass_margins=spiculated")
GUARD = f"""
import importlib.machinery, sys
class Never:
    "Found, as what is installed; but it cannot be imported, and who tried stands in a file."
    @classmethod
    def find_spec(cls, name, path=None, target=None):
        return importlib.machinery.ModuleSpec(name, cls) if name.partition(".")[0] in {NEVER} else None
    @staticmethod
    def create_module(spec):
        with open(__file__ + ".tried", "a") as file:
            file.write(spec.name + " by " + " ".join(sys.argv[:3]) + "\\n")
        raise ImportError(spec.name + " is not to be imported")
    @staticmethod
    def exec_module(module):
        pass
sys.meta_path.insert(0, Never)
"""
"""The content of a ``sitecustomize.py``, which every Python imports that finds it on its path."""


@dataclass(frozen=True)
class Place:
    """A Python in which none of the packages can be imported."""

    python: Path
    environment: dict[str, str]
    tried: Path
    """Where it would stand that one was imported all the same."""

    def run(self, *arguments: object) -> str:
        """What a program prints, which must end well."""
        command = [str(self.python), *map(str, arguments)]
        ended = subprocess.run(command, capture_output=True, text=True, env=self.environment)
        assert ended.returncode == 0, ended.stderr
        assert "Traceback" not in ended.stderr
        return ended.stdout

    def radllm(self, *arguments: object) -> str:
        """What a command prints."""
        return self.run("-m", "radllm_backend", *arguments)


def guarded(folder: Path) -> Place:
    """This Python, in which they are not to be imported."""
    (folder / "sitecustomize.py").write_text(GUARD, encoding="utf-8")
    path = os.pathsep.join([str(folder), str(ROOT)])
    return Place(Path(sys.executable), {**os.environ, "PYTHONPATH": path}, folder / "sitecustomize.py.tried")


def bare(folder: Path) -> Place:
    """One in which they are not installed."""
    source = folder / "source"
    shutil.copytree(ROOT / "radllm_backend", source / "radllm_backend", ignore=shutil.ignore_patterns("__pycache__"))
    for name in ("pyproject.toml", "README.md", "LICENSE.txt"):
        shutil.copy(ROOT / name, source)
    venv.create(folder / "venv", with_pip=True)
    python = folder / "venv" / ("Scripts/python.exe" if os.name == "nt" else "bin/python")
    pip = [python, "-m", "pip", "install", "-q", "--disable-pip-version-check", "-c", ROOT / "constraints.txt"]
    compiled = ("--no-cache-dir", "--no-binary", "pyradiomics-bhklab")
    subprocess.run([*pip, *compiled, f"{source}[{EXTRAS}]"], check=True, capture_output=True)
    environment = {name: text for name, text in os.environ.items() if name != "PYTHONPATH"}
    return Place(python, environment, folder / "none")


@pytest.fixture(scope="module", params=[guarded, pytest.param(bare, marks=pytest.mark.alone)])
def place(request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory) -> Place:
    made: Place = request.param(tmp_path_factory.mktemp("place"))
    show = f"from importlib.util import find_spec; print([name for name in {NEVER} if find_spec(name)])"
    assert made.run("-c", show) == f"{list(NEVER) if request.param is guarded else []}\n"
    return made


@pytest.fixture(autouse=True)
def nothing_was_imported(place: Place) -> Iterator[None]:
    yield
    tried = place.tried.read_text() if place.tried.exists() else ""
    place.tried.unlink(missing_ok=True)
    assert tried == ""


@pytest.fixture
def model(self_contained_model: Path) -> list[object]:
    """A model with an adapter, as a command is told of it."""
    return ["--model", self_contained_model]


@pytest.fixture
def sample(phantom_folder: Path) -> list[object]:
    return [phantom_folder / "3.png", phantom_folder / "3_mask.png", *ULTRASOUND]


@pytest.fixture(scope="module")
def expected(self_contained_model: Path, phantom_table: Path) -> list[float]:
    """The probability of each lesion of the table."""
    rows = read_table(phantom_table).rows()
    return [one.probability for one in Model.load(self_contained_model).predict_many(rows, explain=False)]


def test_who_imports_one_of_them_fails_and_is_noted(place):
    """Else nothing here could fail: in a process that a process starts, too."""
    code = "import subprocess, sys; sys.exit(subprocess.call([sys.executable, '-c', 'import peft.utils'], stderr=-3))"
    ended = subprocess.run([place.python, "-c", code], env=place.environment)
    assert ended.returncode == 1
    noted = place.tried.read_text() if place.tried.exists() else ""
    place.tried.unlink(missing_ok=True)
    assert noted == ("peft by -c\n" if place.python == Path(sys.executable) else "")


def test_classify_and_verify(place, model, sample, expected, tmp_path):
    told = place.radllm("classify", *sample, *model, "-o", tmp_path / "out", "--stability")
    assert "report.html" in told
    said = json.loads((tmp_path / "out" / "prediction.json").read_text())
    assert said["probability"] == pytest.approx(expected[3], abs=1e-6)
    assert place.radllm("verify", tmp_path / "out" / "prediction.json", *sample, *model).startswith("match: ")


def test_describe_by_a_shipped_model(place, smollm2, tmp_path):
    place.radllm("describe", *WORDS, "-o", tmp_path / "out")
    said = json.loads((tmp_path / "out" / "prediction.json").read_text())
    assert said["call"] == "likely malignant"


def test_predict(place, self_contained_model, phantom_table, expected, tmp_path):
    place.radllm("predict", self_contained_model, phantom_table, "-o", tmp_path / "out.csv")
    rows = list(csv.DictReader((tmp_path / "out.csv").open()))
    assert [float(row["probability"]) for row in rows] == pytest.approx(expected, abs=1e-6)


def test_batch(place, model, phantom_folder, expected, tmp_path):
    """Its workers are processes of their own, which read no prompt, but import what they import."""
    lines = (phantom_folder / "manifest.csv").read_text().splitlines()
    manifest = phantom_folder / "four.csv"
    manifest.write_text("\n".join(lines[:5]) + "\n")
    more = ("--workers", 1, "--json-lines", "--explain", "--reports")
    events = map(json.loads, place.radllm("batch", "--manifest", manifest, *model, *more, "-o", tmp_path).splitlines())
    said = {event["lesion"]: event["probability"] for event in events if event["event"] == "lesion"}
    for number in range(4):
        assert said[f"{number}_mask.png"] == pytest.approx(expected[number], abs=1e-6)


def test_serve(place, model, phantom_table, expected, tmp_path):
    environment = {**place.environment, "XDG_RUNTIME_DIR": str(tmp_path)}
    with LocalServer.start(list(map(str, model)), python=place.python, environment=environment) as server:
        served = server.client().model("phantoms")
        rows = read_table(phantom_table).rows()[:3]
        said = [served.predict(rows[0]), *served.predict_many(rows[1:], explain=False)]
        assert [one.probability for one in said] == pytest.approx(expected[:3], abs=1e-6)
        assert any(share.effect for share in said[0].features)


def test_what_is_there_and_what_works(place, smollm2, tiny_base):
    assert f"{smollm2.name}: " in place.radllm("models", "list")
    assert place.radllm("models", "verify", tiny_base).endswith("is intact.\n")
    told = place.radllm("doctor")  # it ends well: a lesion can be classified
    assert smollm2.name in told


def test_a_base_model_is_converted(place, tiny_base, tmp_path):
    write_gguf(tiny_base, tmp_path / "tiny.gguf")
    (tmp_path / "converted").mkdir()
    code = (
        "import sys; from pathlib import Path; from radllm_backend.language.gguf_file import convert_gguf; "
        "convert_gguf(*map(Path, sys.argv[1:]))"
    )
    place.run("-c", code, tmp_path / "tiny.gguf", tmp_path / "converted")
    assert (tmp_path / "converted" / "model.safetensors").is_file()


def test_the_panel_in_this_slicer(place, self_contained_model):
    """Where slicer-core is; in Slicer's own Python, which has no torch, Testing/slicer clicks through all of it."""
    for package in ("slicer", "PySide6"):
        pytest.importorskip(package, exc_type=ImportError)
    if place.python != Path(sys.executable):
        pytest.skip("slicer-core is in this Python, and its panel was opened there")
    code = """
        import sys
        from Testing.slicer.module_scene import (
            RadiomicsLLM, add_segmentation, add_volume, choose_backend, choose_modality, choose_own_model, classify,
            probabilities,
        )
        from Testing.slicer.harness import close_module, open_module, slot_errors
        panel = open_module(RadiomicsLLM)
        choose_backend(panel, "process")
        choose_own_model(panel, sys.argv[1])
        choose_modality(panel, "US")
        add_segmentation(add_volume())
        classify(panel)
        print(*probabilities(), *slot_errors)
        close_module(panel)
    """
    said = place.run("-c", textwrap.dedent(code), self_contained_model).split()
    assert len(said) == 2
    assert all(0 < float(one) < 1 for one in said)
