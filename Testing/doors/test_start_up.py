"""What is imported when: a command that needs no language model does not wait for one."""

from __future__ import annotations

import subprocess
import sys
import time
from pathlib import Path

import pytest

HEAVY = ("torch", "transformers", "peft", "radiomics", "sklearn", "pandas", "scipy", "SimpleITK", "pydicom", "numpy")

SAMPLES = Path(__file__).resolve().parents[2] / "Resources" / "SampleLesions"


def loaded_by(code: str) -> set[str]:
    """Which of the heavy packages are imported in a fresh process."""
    shown = f"import sys\n{code}\nprint(*({set(HEAVY)} & set(sys.modules)))"
    return set(subprocess.run([sys.executable, "-c", shown], check=True, capture_output=True, text=True).stdout.split())


def test_importing_the_package_loads_nothing_heavy():
    assert loaded_by("import radllm_backend") == set()


@pytest.mark.parametrize("command", ["", "train", "adapt", "evaluate", "reproduce ra2025", "dataset"])
def test_the_help_of_the_command_loads_nothing_heavy(command):
    code = (
        "from typer.testing import CliRunner; from radllm_backend.cli.main import app; "
        f"print(CliRunner().invoke(app, {[*command.split(), '--help']}).exit_code)"
    )
    assert loaded_by(code) == {"0"}


@pytest.mark.parametrize("module", ["client", "local", "models"])
def test_a_client_and_what_stands_before_the_models_load_no_torch(module):
    assert not {"torch", "transformers", "sklearn"} & loaded_by(f"import radllm_backend.server.{module}")


def test_explaining_does_not_wait_for_all_of_scipys_statistics():
    code = "import radllm_backend.models.explanation; sys.exit('scipy.stats' in sys.modules)"
    assert subprocess.run([sys.executable, "-c", f"import sys; {code}"], check=False).returncode == 0


def test_a_picture_is_read_without_what_dicom_needs():
    code = (
        "from pathlib import Path; from radllm_backend.imaging.lesion import Lesion; "
        f"Lesion.from_files(Path({str(SAMPLES / 'oval.png')!r}), Path({str(SAMPLES / 'oval_mask.png')!r}))"
    )
    assert "pydicom" not in loaded_by(code)


def test_the_import_and_the_help_are_quick():
    """Generously: a busy machine takes several times as long. `python -m benchmarks start-up` measures it."""
    assert seconds("-c", "import radllm_backend") < 1.5
    assert seconds("-m", "radllm_backend", "--help") < 3


def seconds(*arguments: str) -> float:
    times = []
    for _ in range(3):
        begun = time.perf_counter()
        subprocess.run([sys.executable, *arguments], check=True, capture_output=True)
        times.append(time.perf_counter() - begun)
    return min(times)
