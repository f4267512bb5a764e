"""Slicer's Python measures, the backend's own Python scores: together they say what one Python says alone."""

from __future__ import annotations

import json
import os
import subprocess
from importlib.util import find_spec
from pathlib import Path

import pytest

pytest.importorskip("radiomics")

from radllm_backend import Lesion, extract
from radllm_backend.server.local import LocalServer
from Testing.conftest import BACKEND_PYTHON

SPACING = 0.08
pytestmark = pytest.mark.skipif(not BACKEND_PYTHON, reason="this is the backend's own Python; develop.py runs both")


@pytest.mark.parametrize("package", ["torch", "transformers", "sklearn", "fastapi", "typer", "rich"])
def test_slicer_s_python_has_no_package_of_the_backend_s_own(package: str) -> None:
    assert find_spec(package) is None


def test_over_the_socket_a_lesion_gets_what_the_command_line_gives_it(
    backend_python: str, self_contained_model: Path, phantom_folder: Path, tmp_path: Path
) -> None:
    environment = {**os.environ, "RADLLM_CACHE": str(tmp_path / "cache"), "XDG_RUNTIME_DIR": str(tmp_path)}
    files = phantom_folder / "3.png", phantom_folder / "3_mask.png"

    command = [backend_python, "-m", "radllm_backend", "classify", *files, "--model", self_contained_model]
    given = ["--modality", "US", "--spacing", str(SPACING), "-o", tmp_path / "out"]
    subprocess.run([*command, *given], env=environment, check=True, capture_output=True)
    alone = json.loads((tmp_path / "out" / "prediction.json").read_text(encoding="utf-8"))["probability"]

    arguments = ["--model", str(self_contained_model)]
    with LocalServer.start(arguments, python=backend_python, environment=environment) as server:
        model = server.client().model(self_contained_model.name)
        lesion = Lesion.from_files(*files, spacing=SPACING, modality="US")
        assert model.predict(extract(lesion, model.settings)).probability == pytest.approx(alone, abs=1e-6, rel=0)
