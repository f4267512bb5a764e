"""CONTRIBUTING says how four things are added: its diffs are applied to a copy of the package, and what they add works.

A diff that goes stale does not apply any more, or what it adds cannot be used.
"""

from __future__ import annotations

import os
import re
import shutil
import subprocess
import sys
from pathlib import Path

import pytest

from radllm_backend.models.bundle import read_bundle

ROOT = Path(__file__).resolve().parents[2]
DIFFS = re.findall(
    r"^```diff\n(.*?)^```", (ROOT / "CONTRIBUTING.md").read_text(encoding="utf-8"), re.MULTILINE | re.DOTALL
)


@pytest.fixture(scope="module")
def copy(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A folder with the package and the four additions."""
    folder = tmp_path_factory.mktemp("contributed")
    leave_out = shutil.ignore_patterns("__pycache__")
    shutil.copytree(ROOT / "radllm_backend", folder / "radllm_backend", ignore=leave_out)
    for diff in DIFFS:
        # A folder inside a repository would be that repository's to git.
        alone = {**os.environ, "GIT_CEILING_DIRECTORIES": str(folder.parent)}
        done = subprocess.run(["git", "apply", "-"], cwd=folder, input=diff, env=alone, capture_output=True, text=True)
        assert done.returncode == 0, f"{done.stderr}{diff}"
    return folder


def succeed(copy: Path, *arguments: object) -> str:
    """What the copy's ``radllm`` prints."""
    command = [sys.executable, "-m", "radllm_backend", *map(str, arguments)]
    environment = {**os.environ, "PYTHONPATH": str(copy), "PYTHONDONTWRITEBYTECODE": "1", "COLUMNS": "120"}
    done = subprocess.run(command, cwd=copy, env=environment, capture_output=True, text=True)
    assert done.returncode == 0, done.stderr
    return done.stdout


def test_there_are_four_each_in_one_file():
    files = [re.findall(r"^\+\+\+ b/(.*)$", diff, re.MULTILINE) for diff in DIFFS]
    assert files == [
        ["radllm_backend/datasets/toy.py"],
        ["radllm_backend/language/base_models.yaml"],
        ["radllm_backend/reports/files.py"],
        ["radllm_backend/learning/methods.py"],
    ]


def test_what_is_added_is_kept_in_order(copy):
    for tool in (["check"], ["format", "--check"]):
        command = [sys.executable, "-m", "ruff", *tool, "--no-cache", "--config", ROOT / "pyproject.toml", copy]
        done = subprocess.run(command, capture_output=True, text=True)
        assert done.returncode == 0, done.stdout


def test_the_data_set_has_a_command(copy, phantom_folder, tmp_path):
    assert "Toy: breast ultrasound of nobody, biopsy as truth." in succeed(copy, "dataset", "--help")
    shown = succeed(copy, "dataset", "toy", "--help")
    assert "Folder with cases.csv and the pictures." in shown
    assert "--centre" in shown
    root = tmp_path / "toy"
    shutil.copytree(phantom_folder, root)
    (root / "cases.csv").write_text("case,centre,biopsy\n0,here,benign\n1,here,malignant\n2,there,benign\n3,here,\n")
    manifest = tmp_path / "manifest.csv"
    assert succeed(copy, "dataset", "toy", root, "-o", manifest, "--centre", "here").startswith("2 lesions, 1 benign")
    assert (tmp_path / "manifest-left-out.txt").read_text() == "3: it has no biopsy.\n"
    assert succeed(copy, "dataset", "manifest", manifest, "-o", tmp_path / "checked.csv").startswith("2 lesions")


def test_the_base_model_is_listed(copy):
    listed = succeed(copy, "models", "list")
    assert "toy-llama: Toy LLaMA of 28 thousand weights; Apache-2.0; not installed" in listed


def test_the_method_trains_and_the_format_is_written(copy, phantom_table, phantom_folder, tiny_base, fresh_cache):
    pytest.importorskip("torch")
    assert "frozen, ridge or frozen" in " ".join(succeed(copy, "train", "--help").split())
    model, report = fresh_cache.parent / "model", fresh_cache.parent / "report"
    options = ["--base-model", tiny_base, "--features", "3", "--folds", "2", "--scale-free"]
    columns = ["--target", "label", "--group", "patient"]
    succeed(copy, "train", phantom_table, *columns, "--method", "ridge", *options, "-o", model)
    card = read_bundle(model).card
    assert card.method == "ridge regression on hidden states"
    assert card.performance[0].model == card.method
    lesion = [phantom_folder / name for name in ("1.png", "1_mask.png")]
    more = ["--model", model, "--base-model", tiny_base, "--modality", "US", "-o", report]
    succeed(copy, "classify", *lesion, *more)
    text = (report / "report.md").read_text()
    assert re.fullmatch(r"# [a-z ]+\n\nProbability of malignancy: [\d.]+%\.\n", text), text
    assert (report / "report.html").is_file()
