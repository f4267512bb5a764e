"""The house stays in order: ten rooms, what may import what, and what must work without torch."""

from __future__ import annotations

import ast
import os
import re
import shutil
import subprocess
import sys
from collections.abc import Iterator
from contextlib import AbstractContextManager, contextmanager
from pathlib import Path

import pytest

ROOT = Path(__file__).resolve().parents[2]
PACKAGE = ROOT / "radllm_backend"
MODULE = Path("RadiomicsLLM", "RadiomicsLLMLib")
ROOMS = ["imaging", "features", "language", "models", "datasets", "learning", "reports", "server", "batch", "cli"]
"""From the foundation to the roof."""
TORCH_FREE = [
    "errors",
    "records",
    "files",
    "programs",
    "imaging.lesion",
    "features.extraction",
    "features.table",
    "features.cohort",
    "features.selection",
    "language.prompt",
    "language.base_models",
    "models.bundle",
    "models.model",
    "models.prediction",
    "models.outline_stability",
    "models.verification",
    "models.vllm",
    "models.readme",
    "datasets.manifest",
    "datasets.phantoms",
    "reports.html",
    "server.protocol",
    "server.client",
    "server.process",
    "batch.sources",
    "batch.lesions",
    "cli.doctor",
    "cli.console",
    "cli.main",
]
FOLDERS = ["panel", "scene", "backend", "results", "setup", "batch"]
"""Of the Slicer module, in the same order."""
LONGEST, FULLEST = 400, 20
"""Lines of a file, and Python files of a folder beside its ``__init__``."""


def test_every_import_keeps_to_the_contracts() -> None:
    done = lint(ROOT)
    assert done.returncode == 0, done.stdout


@pytest.fixture(scope="module")
def copy(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The sources of the package and of the Slicer module, which a test may spoil."""
    folder = tmp_path_factory.mktemp("copy")
    for name in (PACKAGE.name, MODULE):
        shutil.copytree(ROOT / name, folder / name, ignore=lambda _, names: [n for n in names if "cache" in n])
    shutil.copy(ROOT / "pyproject.toml", folder)
    return folder


@pytest.mark.parametrize("importer", ROOMS[1:])
def test_an_import_that_is_turned_round_is_noticed(copy: Path, importer: str) -> None:
    for room in ROOMS[: ROOMS.index(importer)]:
        for upper, lower in first_import(copy, importer, room):
            with turned_round(upper, lower):
                assert lint(copy).returncode == 1, f"{lower.name} may import {upper.name}"


def test_a_circle_inside_a_room_and_torch_outside_its_rooms_are_noticed(copy: Path) -> None:
    room = copy / "radllm_backend" / "features"
    with turned_round(room / "table.py", room / "names.py"):
        assert lint(copy).returncode == 1
    with appended(room / "names.py", "import torch"):
        assert lint(copy).returncode == 1
    assert lint(copy).returncode == 0


@pytest.mark.parametrize("importer", FOLDERS)
def test_the_slicer_module_has_an_order_too(copy: Path, importer: str) -> None:
    module = copy / MODULE
    own = next((module / importer).glob("[A-Z]*.py"))
    for folder in FOLDERS[FOLDERS.index(importer) + 1 :]:
        upper = next((module / folder).glob("[A-Z]*.py"))
        with appended(own, f"from ..{folder} import {upper.stem}"):
            assert is_broken(copy), f"{own.name} may import {upper.name}"
    for line in ("from ..Panel import Panel", "from RadiomicsLLM import RadiomicsLLMLogic"):
        with appended(own, line):
            assert is_broken(copy), f"{own.name} may say: {line}"
    with appended(module / "panel" / "Background.py", "from .BackgroundRun import BackgroundRun"):
        assert is_broken(copy)
    assert lint(copy).returncode == 0


def test_a_room_that_nobody_placed_is_noticed(copy: Path) -> None:
    (copy / "radllm_backend" / "attic.py").write_text("")
    assert lint(copy).returncode == 1
    (copy / "radllm_backend" / "attic.py").unlink()


def test_everything_that_only_reads_works_without_torch() -> None:
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


def test_importing_the_package_imports_next_to_nothing() -> None:
    code = "import sys, radllm_backend; print(sorted({'numpy', 'torch', 'SimpleITK', 'pydantic'} & set(sys.modules)))"
    output = subprocess.run([sys.executable, "-c", code], check=True, capture_output=True, text=True).stdout
    assert output.strip() == "[]"


def test_no_room_imports_through_the_root() -> None:
    """The root imports every room when it is asked for a public name: what rooms take from it is its version."""
    for path in PACKAGE.rglob("*.py"):
        if path.parent != PACKAGE:
            taken = taken_from_the_root(ast.parse(path.read_text(encoding="utf-8")))
            assert taken <= {"__version__", *ROOMS}, f"{path.relative_to(PACKAGE)} takes {taken} from the root"


def test_what_is_taken_from_the_root_is_noticed() -> None:
    code = "from radllm_backend import Model\nimport radllm_backend as whole\nfrom radllm_backend.models import model"
    assert taken_from_the_root(ast.parse(code)) == {"Model", "radllm_backend"}


def taken_from_the_root(tree: ast.AST) -> set[str]:
    """The names that a file imports from the package's root, wherever in the file; its own name where all of it."""
    taken: set[str] = set()
    for node in ast.walk(tree):
        if isinstance(node, ast.ImportFrom) and node.module == "radllm_backend":
            taken |= {alias.name for alias in node.names}
        elif isinstance(node, ast.Import):
            taken |= {alias.name for alias in node.names if alias.name == "radllm_backend"}
    return taken


def test_the_house_has_ten_rooms_each_with_a_sentence() -> None:
    assert {path.parent for path in PACKAGE.rglob("*.py")} == {PACKAGE, *(PACKAGE / room for room in ROOMS)}
    assert sorted(path.parent.name for path in PACKAGE.glob("*/__init__.py")) == sorted(ROOMS)
    assert len([path for path in PACKAGE.iterdir() if path.is_file()]) <= 7
    for page in ("README.md", "CONTRIBUTING.md"):
        text = (ROOT / page).read_text(encoding="utf-8")
        for room in ROOMS:
            line = f"| `{room}/` | {sentence_of(room)} |"
            assert line in text, f"{page} lacks the line: {line}"


def test_no_file_is_long_and_no_folder_full() -> None:
    sources = [
        path for name in ("benchmarks", "radllm_backend", "RadiomicsLLM", "Testing") for path in own(ROOT / name)
    ]
    long = {path.name for path in sources if len(path.read_text(encoding="utf-8").splitlines()) > LONGEST}
    assert not long
    folders = {path.parent for path in sources}
    full = {str(folder) for folder in folders if len([*folder.glob("[!_]*.py")]) > FULLEST}
    assert not full


def sentence_of(room: str) -> str:
    """The sentence that explains a room."""
    text = ast.get_docstring(ast.parse((PACKAGE / room / "__init__.py").read_text(encoding="utf-8"))) or ""
    assert re.fullmatch(r"[A-Z][^.]*\.", text), f"{room}: one sentence explains a room, not '{text}'"
    return text


def own(folder: Path) -> Iterator[Path]:
    return (path for path in folder.rglob("*.py") if "build" not in path.parts)


def lint(folder: Path) -> subprocess.CompletedProcess[str]:
    command = [str(Path(sys.executable).with_name("lint-imports")), "--no-cache"]
    environment = {**os.environ, "PYTHONPATH": str(folder / MODULE.parent)}
    return subprocess.run(command, cwd=folder, env=environment, capture_output=True, text=True)


def is_broken(folder: Path) -> bool:
    """Whether a contract is: lint-imports also fails on what it cannot read."""
    done = lint(folder)
    return done.returncode == 1 and "BROKEN" in done.stdout


def first_import(copy: Path, importer: str, imported: str) -> Iterator[tuple[Path, Path]]:
    """A file of one room that imports from another room, and the file that it imports; nothing where there is none."""
    package = copy / "radllm_backend"
    for path in sorted((package / importer).glob("*.py")):
        for node in ast.walk(ast.parse(path.read_text(encoding="utf-8"))):
            name = node.module or "" if isinstance(node, ast.ImportFrom) else ""
            found = package.parent.joinpath(*name.split(".")).with_suffix(".py")
            if name.startswith(f"radllm_backend.{imported}.") and found.is_file():
                yield path, found
                return


@contextmanager
def appended(path: Path, line: str) -> Iterator[None]:
    """A line added to a file, for a while."""
    before = path.read_text(encoding="utf-8")
    path.write_text(f"{before}\n{line}\n", encoding="utf-8")
    try:
        yield
    finally:
        path.write_text(before, encoding="utf-8")


def turned_round(upper: Path, lower: Path) -> AbstractContextManager[None]:
    """The lower file imports the upper one, for a while."""
    return appended(lower, f"from radllm_backend.{upper.parent.name} import {upper.stem}")
