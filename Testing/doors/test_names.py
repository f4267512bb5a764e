"""One name, one meaning: a public name is defined in one file, or it says here why it is defined in several."""

from __future__ import annotations

import ast
from collections import defaultdict
from collections.abc import Iterable, Iterator
from pathlib import Path

PACKAGE = Path(__file__).resolve().parents[2] / "radllm_backend"
COMMAND = "A command, and the function that it opens."
JUSTIFIED = {
    "TABLE": "The file of a data set that lists its lesions, in the file of each data set.",
    "command": "What radllm dataset NAME is made of, in the file of each data set.",
    "manifest": "What every data set's file is there for.",
    "register": "What every file of a group of commands has to do.",
    "export": COMMAND,
    "pull": COMMAND,
    "remove": COMMAND,
    "serve": COMMAND,
    "verify": COMMAND,
}
"""Each name that several files define, and why its meaning is one."""
FIRST = """
def a(): ...
class B: ...
C = 1
d: int = 2
e, (f, *g) = 3, (4, 5)
if C:
    H = 6
else:
    async def i(): ...
"""
SECOND = """
try:
    import j
except ImportError:
    j = None
_k = 7
class L:
    a = 8
    def m(self): ...
"""


def test_a_public_name_is_defined_once_or_justified() -> None:
    found = defined_in_several(PACKAGE)
    assert {name: files for name, files in found.items() if name not in JUSTIFIED} == {}


def test_no_justification_is_of_a_name_that_is_defined_once() -> None:
    assert set(JUSTIFIED) - set(defined_in_several(PACKAGE)) == set()


def test_every_way_of_defining_a_name_is_seen(tmp_path: Path) -> None:
    (tmp_path / "room").mkdir()
    (tmp_path / "first.py").write_text(FIRST + "\n_k = 7\nm = 9\nj = 10\nj = 11")
    (tmp_path / "room" / "second.py").write_text(SECOND + FIRST)
    assert sorted(defined_in_several(tmp_path)) == ["B", "C", "H", "a", "d", "e", "f", "g", "i", "j"]
    assert defined_in_several(tmp_path)["a"] == ["first.py", "room/second.py"]


def defined_in_several(package: Path) -> dict[str, list[str]]:
    """The public names that stand at the top level of more than one file, with those files."""
    files = defaultdict(list)
    for file in sorted(package.rglob("*.py")):
        for name in {*defined(ast.parse(file.read_text(encoding="utf-8")).body)}:
            if not name.startswith("_"):
                files[name].append(file.relative_to(package).as_posix())
    return {name: found for name, found in sorted(files.items()) if len(found) > 1}


def defined(body: Iterable[ast.stmt]) -> Iterator[str]:
    """The functions, classes, constants and type aliases of a module, under conditions too; not what it imports."""
    for statement in body:
        match statement:
            case ast.FunctionDef(name=name) | ast.AsyncFunctionDef(name=name) | ast.ClassDef(name=name):
                yield name
            case ast.Assign(targets=targets):
                yield from (node.id for target in targets for node in ast.walk(target) if is_bound(node))
            case ast.AnnAssign(target=ast.Name(id=name)):
                yield name
            case ast.If() | ast.Try() | ast.With() | ast.For():
                yield from defined(part for part in ast.iter_child_nodes(statement) if isinstance(part, ast.stmt))
                yield from defined(part for handler in getattr(statement, "handlers", ()) for part in handler.body)


def is_bound(node: ast.AST) -> bool:
    return isinstance(node, ast.Name) and isinstance(node.ctx, ast.Store)
