"""Two checkouts in processes of their own: what each imports, and what a process took."""

from __future__ import annotations

import sys
from pathlib import Path

import pytest

pytest.importorskip("resource", reason="Windows does not tell the peak of a process")

from benchmarks.release import REPORT, classify
from benchmarks.trees import Tree, release_tree, this_tree, watched
from radllm_backend.errors import RadllmError

_MB = 2**20


def python(code: str) -> list[str]:
    return [sys.executable, "-c", code]


@pytest.fixture
def fake(tmp_path: Path) -> Tree:
    """A checkout whose command writes the files that its environment names into the folder after ``-o``."""
    package = tmp_path / "fake" / "radllm_backend"
    package.mkdir(parents=True)
    (package / "__init__.py").touch()
    (package / "__main__.py").write_text(
        "import os, pathlib, sys\n"
        "output = pathlib.Path(sys.argv[sys.argv.index('-o') + 1])\n"
        "output.mkdir(exist_ok=True)\n"
        "for name in os.environ['FAKE_FILES'].split():\n"
        "    (output / name).touch()\n"
    )
    return Tree(package.parent, Path(sys.executable))


def test_the_peak_is_that_of_the_process_and_not_of_the_one_that_measures() -> None:
    here = bytearray(200 * _MB)
    here[::4096] = b"x" * len(here[::4096])
    assert watched(python("pass"), this_tree().environment()).peak < 100


def test_the_peak_counts_what_a_process_starts_itself() -> None:
    code = f"import subprocess, sys; subprocess.run([sys.executable, '-c', 'bytearray({300 * _MB})'], check=True)"
    spent = watched(python(code), this_tree().environment())
    assert 300 < spent.peak < 400


def test_the_seconds_are_those_to_the_end() -> None:
    assert 0.3 < watched(python("import time; time.sleep(0.3)"), this_tree().environment()).seconds < 30


def test_a_command_that_fails_says_why() -> None:
    with pytest.raises(RadllmError, match=r"failed: there is no model"):
        watched(python("import sys; sys.exit('there is no model')"), this_tree().environment())


def test_a_process_imports_the_package_of_its_tree_and_chooses_its_threads(
    fake: Tree, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("OMP_NUM_THREADS", "1")
    monkeypatch.setenv("PYTHONDONTWRITEBYTECODE", "1")
    where = "import os, radllm_backend as r, sys; sys.exit(f'{r.__file__} {os.environ.get(\"OMP_NUM_THREADS\")}')"
    for tree in (fake, this_tree()):
        with pytest.raises(RadllmError) as told:
            watched(tree.command("-c", where), tree.environment())
        assert str(told.value).endswith(f"{tree.folder}/radllm_backend/__init__.py None")
    assert "PYTHONDONTWRITEBYTECODE" not in fake.environment()


def test_a_report_is_whole_and_not_that_of_the_round_before(
    fake: Tree, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    output = tmp_path / "report"
    monkeypatch.setenv("FAKE_FILES", " ".join(REPORT))
    classify(fake, output)
    monkeypatch.setenv("FAKE_FILES", " ".join(REPORT[:-1]))
    with pytest.raises(RadllmError, match=f"of fake wrote no {REPORT[-1]}"):
        classify(fake, output)


def test_a_release_needs_its_own_virtual_environment(tmp_path: Path) -> None:
    with pytest.raises(RadllmError, match="has no virtual environment .venv: run `python3 develop.py demo` there"):
        release_tree(tmp_path)
