"""The house stays in order: what may import what, and what must work without torch."""

from __future__ import annotations

import ast
import subprocess
import sys
from pathlib import Path

PACKAGE = Path(__file__).resolve().parents[2] / "radllm_backend"
FILES = """
    errors processes safe_files features feature_names shipped descriptors knowledge prediction dicom_decoding
    dicom_files image_files content_hash imaging candidates dicom_segmentations dicom_masks dicom_matching cropping mesh
    image_filters fast_features extraction feature_table cohort selection prompt prompt_writer model_cache fetching
    tokenizer_file base_models estimates calibration calibrating conformal protocol connection client local_server
    metrics intervals stability scorecard heads classical fusion explanation training_reference bundle cautions
    linear prompt_packs llama llm model mask_stability verification exporting vllm_engine micro_batches served_models
    server_files server_connections server_journal server_trust server_app server model_card training evaluation
    table_evaluation methods contenders performance training_plan training_card building adaptation datasets
    dicom_database batch_lesions batch_worker batch_preload batch_cluster batch_results batch_exports reproduction
    reports batch_scoring batch benchmarks doctor console cli_support cli_lesions cli_studies cli_batch cli_datasets
    cli_reproduce cli_server cli_bench cli __main__
"""
TORCH_FREE_FILES = """
    errors features feature_names prediction imaging candidates extraction feature_table cohort selection prompt
    base_models estimates calibration heads training_reference protocol client bundle cautions explanation model
    mask_stability verification vllm_engine server model_card datasets.manifest datasets.phantoms dicom_database
    batch_lesions reports.html doctor console cli
"""
ORDER, TORCH_FREE = FILES.split(), TORCH_FREE_FILES.split()


def imports_of(path: Path) -> set[str]:
    """Names of the package's own modules that a file imports, wherever in the file."""
    found = set()
    for node in ast.walk(ast.parse(path.read_text(encoding="utf-8"))):
        if isinstance(node, ast.ImportFrom) and node.module == "radllm_backend":
            found |= {alias.name for alias in node.names}
        elif isinstance(node, ast.ImportFrom) and (node.module or "").startswith("radllm_backend."):
            found.add(node.module.split(".")[1])
    return found & set(ORDER)


def test_every_file_has_its_place():
    found = {path.relative_to(PACKAGE).parts[0].removesuffix(".py") for path in PACKAGE.rglob("*.py")}
    assert found - {"__init__"} == set(ORDER)


def test_a_file_imports_only_from_those_before_it():
    for path in PACKAGE.rglob("*.py"):
        own = path.relative_to(PACKAGE).parts[0].removesuffix(".py")
        if own == "__init__":
            continue
        later = {name for name in imports_of(path) if ORDER.index(name) > ORDER.index(own)}
        # A model loads its language model on first use, doors import what they open: but never upwards.
        assert not later, f"{path.name} imports {later}"


def test_everything_down_to_the_prompt_works_without_torch():
    names = ", ".join(f"radllm_backend.{name}" for name in TORCH_FREE)
    code = (
        "import sys\n"
        "class NoTorch:\n"
        "    def find_spec(self, name, path=None, target=None):\n"
        "        if name.split('.')[0] in ('torch', 'transformers', 'peft'): raise ImportError(name)\n"
        "sys.meta_path.insert(0, NoTorch())\n"
        f"import {names}\n"
        "from radllm_backend import Lesion, Model, Features, extract\n"
    )
    subprocess.run([sys.executable, "-c", code], check=True)


def test_importing_the_package_imports_next_to_nothing():
    code = "import sys, radllm_backend; print(sorted({'numpy', 'torch', 'SimpleITK', 'pydantic'} & set(sys.modules)))"
    output = subprocess.run([sys.executable, "-c", code], check=True, capture_output=True, text=True).stdout
    assert output.strip() == "[]"
