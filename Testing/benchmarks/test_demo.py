"""A demo in a fresh clone: what it needs of the disk, and that it ended as it should."""

from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path

import pytest

from benchmarks.demo import demo, disk_use
from benchmarks.trees import Tree
from radllm_backend.errors import RadllmError

_MB = 2**20
_DEVELOP = """
import os, pathlib, sys
def write(name, size=0):
    path = pathlib.Path(name)
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_bytes(os.urandom(size))
os.chdir(pathlib.Path(__file__).parent)
assert sys.argv[1:] == ["demo"] and "PYTHONPATH" not in os.environ
assert not pathlib.Path(os.environ["RADLLM_CACHE"]).exists() and not pathlib.Path(os.environ["PIP_CACHE_DIR"]).exists()
write(".venv/lib/python3/site-packages/PACKAGE/__init__.py", 2_000_000)
write(os.environ["RADLLM_CACHE"] + "/model", 3_000_000)
write(os.environ["PIP_CACHE_DIR"] + "/wheel", 5_000_000)
for lesion in LESIONS:
    write(f"out/{lesion}/report.html")
"""


def tree(folder: Path, package: str = "numpy", lesions: tuple[str, ...] = ("oval", "spiculated")) -> Tree:
    """A committed tree whose demo writes such files, and nothing that another demo would be helped by."""
    folder.mkdir()
    text = _DEVELOP.replace("PACKAGE", package).replace("LESIONS", repr(lesions))
    (folder / "develop.py").write_text(text)
    author = ("-c", "user.name=A", "-c", "user.email=a@example.org")
    for arguments in (("init", "-q"), ("add", "."), (*author, "commit", "-qm", "ENH: A demo")):
        subprocess.run(["git", *arguments], cwd=folder, check=True)
    return Tree(folder, Path(sys.executable))


@pytest.mark.parametrize(("package", "has_torch"), [("numpy", False), ("torch", True)])
def test_packages_and_base_model_count_and_what_pip_keeps_does_not(
    tmp_path: Path, package: str, has_torch: bool
) -> None:
    one, work = tree(tmp_path / "tree", package), tmp_path / "work"
    for _ in range(2):
        found = demo(one, work)
        assert 5_000_000 / _MB <= found.disk < 5_100_000 / _MB
        assert found.has_torch is has_torch
        assert found.seconds > 0
        assert not work.exists()


def test_a_demo_without_its_reports_does_not_count(tmp_path: Path) -> None:
    with pytest.raises(RadllmError, match="of tree ended without the report of the lesion spiculated"):
        demo(tree(tmp_path / "tree", lesions=("oval",)), tmp_path / "work")
    assert not (tmp_path / "work").exists()


def test_a_demo_that_fails_says_why(tmp_path: Path) -> None:
    with pytest.raises(RadllmError, match="demo` failed: .*NameError"):
        demo(tree(tmp_path / "tree", package='" + no_such_name + "'), tmp_path / "work")


@pytest.mark.skipif(os.name == "nt", reason="Windows does not tell the blocks of a file")
def test_a_file_with_two_names_counts_once_and_a_link_as_itself(tmp_path: Path) -> None:
    (tmp_path / "one").write_bytes(os.urandom(_MB))
    os.link(tmp_path / "one", tmp_path / "two")
    (tmp_path / "three").symlink_to("one")
    assert _MB <= disk_use(tmp_path) < _MB + 10_000
