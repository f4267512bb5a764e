"""Checkouts of this repository that are measured beside each other, each run by its own Python in processes apart."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import NamedTuple

from radllm_backend.errors import RadllmError

_CHANGES_SPEED = (
    "PYTHONDONTWRITEBYTECODE",
    "OMP_NUM_THREADS",
    "OPENBLAS_NUM_THREADS",
    "MKL_NUM_THREADS",
    "ITK_GLOBAL_DEFAULT_NUMBER_OF_THREADS",
)
_BIN_PYTHON = "Scripts/python.exe" if os.name == "nt" else "bin/python"

# A process of its own: what a process that this one starts begins with, this one's memory, would count as well.
_WATCH = """
import json, os, subprocess, sys, time
begun = time.perf_counter()
process = subprocess.Popen(sys.argv[1:], stdin=subprocess.DEVNULL, stdout=subprocess.DEVNULL)
_, status, usage = os.wait4(process.pid, 0)
seconds = time.perf_counter() - begun
print(json.dumps([os.waitstatus_to_exitcode(status), seconds, usage.ru_maxrss]))
"""


class Spent(NamedTuple):
    """What a process took."""

    seconds: float
    """From its start to its end."""
    peak: float
    """MB of memory at most, what it maps of files included; of a process that it started, if that took more."""


@dataclass(frozen=True)
class Tree:
    """A checkout, and the Python that has its packages."""

    folder: Path
    python: Path

    def environment(self, **more: str) -> dict[str, str]:
        """A user's: the tree's package is imported, compiled files are kept, threads are chosen by each program."""
        kept = {name: value for name, value in os.environ.items() if name not in _CHANGES_SPEED}
        return {**kept, "PYTHONPATH": str(self.folder), **more}

    def command(self, *arguments: str) -> list[str]:
        """Python with these arguments; whatever lies in the current folder is not imported."""
        return [str(self.python), "-P", *arguments]

    def radllm(self, *arguments: str) -> Spent:
        """Run the command ``radllm`` of this tree.

        Raises:
            RadllmError: it fails, or this system does not tell the peak of a process.
        """
        if not hasattr(os, "wait4"):
            raise RadllmError("The peak memory of a process is measured on Linux and macOS only.")
        return watched(self.command("-m", "radllm_backend", *arguments), self.environment())


def this_tree() -> Tree:
    """The checkout that this file is in, with the Python that runs now."""
    return Tree(Path(__file__).resolve().parents[1], Path(sys.executable))


def release_tree(folder: Path) -> Tree:
    """The checkout of a release; RadllmError where it has no virtual environment of its own."""
    python = folder.absolute() / ".venv" / _BIN_PYTHON
    if not python.is_file():
        raise RadllmError(f"{folder} has no virtual environment .venv: run `python3 develop.py demo` there first.")
    return Tree(folder.resolve(), python)


def watched(command: Sequence[str], environment: dict[str, str]) -> Spent:
    """Run a command to its end; RadllmError, with its last words, where it fails."""
    watch = [sys.executable, "-I", "-c", _WATCH, *command]
    found = subprocess.run(watch, env=environment, capture_output=True, text=True, check=True)
    status, seconds, peak = json.loads(found.stdout)
    if status:
        raise RadllmError(f"`{' '.join(command)}` failed: {last_line(found.stderr)}")
    unit = 2**20 if sys.platform == "darwin" else 2**10  # ru_maxrss is in bytes there, in KB elsewhere
    return Spent(seconds, peak / unit)


def last_line(text: str) -> str:
    lines = [line.strip() for line in text.splitlines() if line.strip()]
    return lines[-1][:500] if lines else "it said nothing."
