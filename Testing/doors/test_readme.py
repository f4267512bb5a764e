"""The README says what is true."""

from __future__ import annotations

import ast
import re
import shutil
from pathlib import Path

import pytest

import radllm_backend
from radllm_backend.models.bundle import read_bundle
from radllm_backend.models.shipped import shipped_models
from Testing.support.command_line import radllm, succeed

ROOT = Path(__file__).resolve().parents[2]
README = (ROOT / "README.md").read_text(encoding="utf-8")
EXAMPLES = re.findall(r"^```python\n(.*?)^```", README, re.MULTILINE | re.DOTALL)


@pytest.mark.skipif("breast-us" not in shipped_models(), reason="needs the shipped model")
def test_its_figures_are_those_of_the_model_card():
    pytest.importorskip("radiomics")
    for row in read_bundle("breast-us").card.performance:
        low, high = row.auc_interval
        assert f"| {row.model} | {row.auc:.3f} | {low:.3f} to {high:.3f} |" in README


def test_its_commands_exist():
    known = set(re.findall(r"^  ([a-z-]+)  ", radllm("--help").output, re.MULTILINE))
    named = set(re.findall(r"`radllm ([a-z-]+)", README))
    assert {"classify", "train", "predict", "extract", "doctor", "models", "dataset"} <= named
    assert named <= known
    for command in named:
        assert "--help" in succeed(command, "--help").output


def test_what_its_examples_in_python_import_is_public():
    for tree in map(ast.parse, EXAMPLES):
        for node in ast.walk(tree):
            if isinstance(node, ast.ImportFrom) and str(node.module).startswith("radllm_backend"):
                assert node.module == "radllm_backend"
                assert {alias.name for alias in node.names} <= set(radllm_backend.__all__)


@pytest.mark.long
@pytest.mark.usefixtures("lean")
def test_its_example_of_training_runs(phantom_table, tiny_base, fresh_cache, tmp_path, monkeypatch, capsys):
    """On synthetic lesions, and with a base model of some thousand weights instead of the usual one."""
    from radllm_backend.language.base_models import locate
    from radllm_backend.learning import plan

    (example,) = [text for text in EXAMPLES if "import evaluate, train" in text]
    shutil.copy(phantom_table, tmp_path / "lesions.csv")
    monkeypatch.chdir(tmp_path)
    monkeypatch.setattr(plan, "locate", lambda _: locate(tiny_base))
    exec(compile(example, "README.md", "exec"), {})
    printed = capsys.readouterr().out
    assert "fusion, concatenated, LDA: AUC " in printed
    assert (tmp_path / "comparison" / "evaluation.html").is_file()
    assert read_bundle(tmp_path / "my-model").card.training.command == (
        "radllm train lesions.csv --target label --group patient --features 4 --method fusion "
        "--base-model tiny-llama -o my-model"
    )


def test_its_pictures_and_files_are_there():
    for path in re.findall(r"\]\(([^)#:]+)\)", README):
        assert (ROOT / path).is_file(), path


def test_no_file_of_the_project_names_a_folder_of_somebodys_machine():
    suffixes = {".py", ".md", ".yaml", ".toml", ".txt", ".json", ".csv", ".jinja", ".css", ".ui"}
    folders = re.compile(r"(?<![\w.])/(?:home|root|Users|work)/\w")
    for path in ROOT.rglob("*"):
        parts = path.relative_to(ROOT).parts
        if path.suffix in suffixes and not any(part.startswith((".", "build", "out")) for part in parts):
            found = folders.search(path.read_text(encoding="utf-8", errors="ignore"))
            assert not found, f"{path.relative_to(ROOT)}: {found}"
