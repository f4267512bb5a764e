"""Programs that the package starts; the module's own are looked at in ``slicer/setup/test_module_measuring.py``."""

from __future__ import annotations

import ast
import subprocess
import sys
from pathlib import Path

import pytest

from radllm_backend import programs

PACKAGE = Path(programs.__file__).parent
_STARTING = {
    "subprocess": {"run", "Popen", "call", "check_call", "check_output", "getoutput", "getstatusoutput"},
    "os": {"system", "popen", "startfile"},
    "asyncio": {"create_subprocess_exec", "create_subprocess_shell"},
}


def starts(path: Path) -> list[ast.Call]:
    """The calls in a file that start a program; a function that is imported by its name alone is noticed as well."""
    found = []
    for node in ast.walk(ast.parse(path.read_text(encoding="utf-8"))):
        if isinstance(node, ast.ImportFrom) and node.module in _STARTING:
            assert not _STARTING[node.module] & {name.name for name in node.names}, f"{path}: {ast.unparse(node)}"
        if not isinstance(node, ast.Call) or not isinstance(node.func, ast.Attribute):
            continue
        if node.func.attr in _STARTING.get(ast.unparse(node.func.value), ()):
            found.append(node)
    return found


def test_every_program_of_the_package_is_started_without_a_window() -> None:
    calls = [(path, call) for path in PACKAGE.rglob("*.py") for call in starts(path)]
    assert {path.name for path, _call in calls} >= {"fetching.py", "local.py"}
    for path, call in calls:
        given = [ast.unparse(keyword.value) for keyword in call.keywords if keyword.arg is None]
        assert "without_window()" in given, f"{path}:{call.lineno}"


@pytest.mark.parametrize(
    "line",
    [
        "subprocess.run(['pip'])",
        "with subprocess.Popen('x') as one: pass",
        "os.system('x')",
        "x = os.popen('y').read()",
    ],
)
def test_a_program_is_noticed(tmp_path: Path, line: str) -> None:
    file = tmp_path / "one.py"
    file.write_text(line)
    assert len(starts(file)) == 1
    file.write_text("from subprocess import check_output")
    with pytest.raises(AssertionError, match="check_output"):
        starts(file)


def test_only_windows_has_windows_to_do_without(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(subprocess, "CREATE_NO_WINDOW", 0x08000000, raising=False)
    monkeypatch.setattr(sys, "platform", "linux")
    assert programs.without_window() == {}
    monkeypatch.setattr(sys, "platform", "win32")
    assert programs.without_window() == {"creationflags": 0x08000000}
