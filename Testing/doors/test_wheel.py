"""What an installed package holds: all of the package, with its types, and nothing beside it."""

from __future__ import annotations

import shutil
import subprocess
import sys
from pathlib import Path
from zipfile import ZipFile

import pytest

ROOT = Path(__file__).resolve().parents[2]
BESIDE = ("benchmarks", "RadiomicsLLM", "Testing/support")
"""Folders that a build would find too."""


@pytest.fixture(scope="module")
def wheel(tmp_path_factory: pytest.TempPathFactory) -> set[str]:
    """The names of the files in a wheel, which is built in a copy: a build leaves its own files in the sources."""
    source = tmp_path_factory.mktemp("source")
    for name in ("radllm_backend", *BESIDE):
        shutil.copytree(ROOT / name, source / name, ignore=shutil.ignore_patterns("__pycache__", ".*"))
    for name in ("pyproject.toml", "README.md", "LICENSE.txt"):
        shutil.copy(ROOT / name, source)
    code = "import sys; from setuptools import build_meta; print(build_meta.build_wheel(sys.argv[1]))"
    out = tmp_path_factory.mktemp("wheel")
    subprocess.run([sys.executable, "-c", code, out], cwd=source, check=True, capture_output=True)
    (file,) = out.glob("*.whl")
    with ZipFile(file) as archive:
        return {name for name in archive.namelist() if ".dist-info/" not in name}


def test_a_wheel_holds_the_package_whole_and_nothing_else(wheel: set[str]) -> None:
    package = [path for path in (ROOT / "radllm_backend").rglob("*") if "__pycache__" not in path.parts]
    assert wheel == {path.relative_to(ROOT).as_posix() for path in package if path.is_file()}


def test_a_wheel_says_that_it_has_types(wheel: set[str]) -> None:
    assert "radllm_backend/py.typed" in wheel
