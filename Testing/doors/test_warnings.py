"""What a library warns of today, and takes away tomorrow, is an error in the tests."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path

import pytest

ROOT = Path(__file__).resolve().parents[2]
DEPRECATED = (
    "np.fft.irfftn(np.ones((4, 3)), (4, 4))",
    "warnings.warn('old', FutureWarning)",
    "warnings.warn('soon', PendingDeprecationWarning)",
)


@pytest.mark.parametrize("line", DEPRECATED)
def test_what_will_go_is_an_error_today(tmp_path: Path, line: str) -> None:
    done = run_test(tmp_path, line)
    assert done.returncode == pytest.ExitCode.TESTS_FAILED, done.stdout
    assert "Warning: " in done.stdout


def test_what_only_others_can_mend_is_not(tmp_path: Path) -> None:
    line = "warnings.warn('the load_module() method is deprecated and slated for removal', DeprecationWarning)"
    assert run_test(tmp_path, line).returncode == pytest.ExitCode.OK


def run_test(folder: Path, line: str) -> subprocess.CompletedProcess[str]:
    """A test of one line, with this project's own settings."""
    file = folder / "test_one.py"
    file.write_text(f"import warnings\nimport numpy as np\n\n\ndef test_one() -> None:\n    {line}\n")
    command = [sys.executable, "-m", "pytest", "-q", "-p", "no:cacheprovider", "-c", ROOT / "pyproject.toml", file]
    return subprocess.run(command, cwd=folder, capture_output=True, text=True)
