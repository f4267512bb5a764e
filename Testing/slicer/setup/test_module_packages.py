"""The packages that Slicer's own Python needs: which are missing, what they import of each other, their sizes."""

from __future__ import annotations

import csv
import re
import subprocess
import sys
import tomllib
from importlib import metadata
from pathlib import Path

import pytest
from packaging.requirements import Requirement

WHY = "the Slicer module is tested where slicer-core and PySide6-Essentials are installed"
pytest.importorskip("slicer", reason=WHY, exc_type=ImportError)
pytest.importorskip("PySide6", reason=WHY, exc_type=ImportError)

from Testing.slicer.setup.module_setup import ROOT

from RadiomicsLLMLib.backend import Requirements as requirements
from RadiomicsLLMLib.backend.FirstUse import BASE_MODEL, Missing, baseModelOf, consentText
from RadiomicsLLMLib.backend.Requirements import MEASURING, READS_ELSEWHERE, READS_HERE, Package

SIZES = ("linux", "windows", "mac-intel", "mac-arm")
MOST_BYTES = 110_000_000
SLICERS_OWN = {"numpy", "requests", "pillow"}
"""``SuperBuild/External_python-*-requirements.cmake`` of Slicer; pillow in 5.10 as in 5.12."""
NEVER_IMPORTED = {"huggingface-hub", "tqdm"}
"""``tokenizers`` and ``gguf`` ask for them, and reading a model from this computer imports neither."""


# --- what is missing ----------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("installed", "missing"),
    [("2.9", False), ("2.14.3", False), ("2.10rc1", False), ("2.8.9", True), ("1.10.26", True), (None, True)],
)
def test_a_package_that_is_too_old_is_missing(
    monkeypatch: pytest.MonkeyPatch, installed: str | None, missing: bool
) -> None:
    monkeypatch.setattr(requirements, "isMissing", lambda module: installed is None)
    monkeypatch.setattr(metadata, "version", lambda name: installed)
    requirements.forgetVersions()
    assert Package("pydantic", "pydantic", "2.9", "2.14.3", 1).isMissing() is missing
    requirements.forgetVersions()


def test_two_halves_of_one_release_are_installed_together(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(Package, "isMissing", lambda self: self.name == "pydantic")
    assert [one.requirement.split("==")[0] for one in requirements.missingPackages([MEASURING])] == [
        "pydantic", "pydantic-core",
    ]  # fmt: skip


def test_which_base_model_a_model_needs_is_read_without_any_package(tmp_path: Path) -> None:
    assert baseModelOf("breast-us") == BASE_MODEL
    assert baseModelOf(str(tmp_path)) == ""
    (tmp_path / "model.json").write_text('{"base": {"name": "/somebody/elses"}}')
    assert baseModelOf(str(tmp_path)) == ""
    code = (
        "import sys, types; sys.path[:0] = ['RadiomicsLLM', '.']\n"
        "from Testing.slicer.harness import load_module\n"
        "from RadiomicsLLMLib.backend.FirstUse import baseModelOf; print(baseModelOf('breast-us'))\n"
        "print(sorted({'pydantic', 'yaml', 'filelock', 'tokenizers'} & set(sys.modules)))"
    )
    told = subprocess.run([sys.executable, "-c", code], cwd=ROOT, check=True, capture_output=True, text=True).stdout
    assert told.split("\n")[:2] == [BASE_MODEL, "[]"]


def test_with_all_packages_there_only_the_base_model_is_asked_for() -> None:
    text = consentText(Missing([], BASE_MODEL))
    assert "Packages" not in text
    assert "93 MB are downloaded at most" in text


# --- the table ----------------------------------------------------------------------------------------------------


def table() -> list[dict[str, str]]:
    with requirements.PACKAGE_TABLE.open(encoding="utf-8", newline="") as file:
        return list(csv.DictReader(file))


@pytest.mark.parametrize("system", SIZES)
def test_the_first_use_downloads_at_most_110_megabytes(system: str) -> None:
    rows = {row["package"]: int(row[system]) for row in table()}
    assert sum(rows.values()) - rows["pillow"] <= MOST_BYTES  # Slicer brings it
    pdf = ("fpdf2", "fonttools", "defusedxml")
    assert sum(rows.values()) - sum(rows[name] for name in pdf) <= MOST_BYTES


def test_the_table_names_what_was_tested_and_what_the_project_asks_for() -> None:
    pinned = [Requirement(line) for line in constraints()]
    tested = {canonical(one.name): str(one.specifier) for one in pinned}
    project = tomllib.loads((ROOT / "pyproject.toml").read_text(encoding="utf-8"))["project"]
    extras = project["optional-dependencies"]
    asked = [Requirement(line) for line in [*project["dependencies"], *extras.get("llm", [])]]
    minima = {canonical(one.name): one.specifier for one in asked}
    for row in table()[:-1]:
        assert tested[row["package"]] == f"=={row['tested']}", row
        if row["package"] in minima:
            assert f">={row['minimum']}" in str(minima[row["package"]]), row


def constraints() -> list[str]:
    lines = (ROOT / "constraints.txt").read_text(encoding="utf-8").splitlines()
    return [line for line in lines if re.match(r"[A-Za-z].*==", line)]


def test_the_table_is_all_that_its_packages_import_of_each_other() -> None:
    """pip is told to install nothing else."""
    known = {row["package"]: row for row in table()}
    for name, row in known.items():
        try:
            needs = metadata.requires(name) or []
        except metadata.PackageNotFoundError:
            continue
        for need in map(Requirement, needs):
            if need.marker and not need.marker.evaluate({"extra": ""}):
                continue
            wanted = canonical(need.name)
            assert wanted in {*known, *SLICERS_OWN, *NEVER_IMPORTED}, (row["package"], str(need))
            if wanted in known:
                assert need.specifier.contains(known[wanted]["tested"]), (row["package"], str(need))


def canonical(name: str) -> str:
    return re.sub(r"[-_.]+", "-", name).lower()


def test_nothing_of_pytorch_is_asked_for() -> None:
    names = {row["package"] for row in table()}
    assert not names & {"torch", "transformers", "accelerate", "scikit-learn", "highdicom", "pydicom"}
    assert {package.name for package in requirements.packages(READS_ELSEWHERE)} < {
        package.name for package in requirements.packages(READS_HERE)
    }
