"""Which Python the local server runs in."""

from __future__ import annotations

import os
import sys
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Protocol

import qt

from .BackendEnvironment import BackendEnvironment, sources
from .SlicerPackages import SlicerPackages

VARIABLE = "RADLLM_BACKEND_PYTHON"
"""Environment variable: an interpreter that has the backend's packages, instead of the module's own folder of them."""
_PATHS = "import sys; sys.path[:0] = {first!r}; sys.path += {last!r}\n"


class BackendPython(Protocol):
    """An interpreter that can run ``radllm serve``: `BackendEnvironment` is such."""

    @property
    def python(self) -> Path: ...

    @property
    def isSlicers(self) -> bool:
        """Whether it is Slicer's own: only that may see Slicer's libraries."""

    @property
    def measures(self) -> bool:
        """Whether it is known to have PyRadiomics."""

    def paths(self) -> tuple[list[str], list[str]]:
        """Folders of packages that come before its own, and those that come after."""

    def problem(self) -> str:
        """Why it cannot be used and what to do, in one sentence; empty where it can."""

    def variables(self, inherited: Mapping[str, str]) -> dict[str, str]:
        """Its environment variables, made of those that Slicer was started with."""


class GivenPython:
    """An interpreter that the user's administrator (or a test) has prepared."""

    def __init__(self, python: str | Path, *, measures: bool = True) -> None:
        self.python, self.isSlicers, self.measures = Path(python), False, measures

    def problem(self) -> str:
        return ""

    def paths(self) -> tuple[list[str], list[str]]:
        """Nothing but its own: what it needs besides is in `variables`."""
        return [], []

    def variables(self, inherited: Mapping[str, str]) -> dict[str, str]:
        """Nothing of Slicer's Python; the backend of this extension."""
        kept = {name: value for name, value in inherited.items() if name not in ("PYTHONHOME", "PYTHONPATH")}
        return {**kept, "PYTHONPATH": str(sources())}


def backendPython() -> BackendPython:
    """The prepared interpreter, where there is one, or else what the module sets up for itself."""
    given = os.environ.get(VARIABLE)
    return GivenPython(given) if given else BackendEnvironment(environmentFolder())


def programVariables(python: BackendPython) -> dict[str, str]:
    """The environment variables of a program that runs in this interpreter."""
    packages = SlicerPackages()
    return python.variables(packages.variables(packages.python() if python.isSlicers else ""))


def programCode(python: BackendPython, code: str, last: Sequence[str] = ()) -> list[str]:
    """What the interpreter is told, so that it runs some code with the backend's packages; arguments may follow.

    What lies in the folder that Slicer was started in is not imported (``-P``).

    Args:
        last: further folders of packages, which come after all others.
    """
    before, after = python.paths()
    return ["-P", "-c", _PATHS.format(first=before, last=[*after, *last]) + code]


def environmentFolder() -> Path:
    """Where the module's own packages lie: the user's local application data.

    On Windows without the name of Slicer's organisation and application in it: a path may have 259 characters there,
    and some packages' files need a hundred of them.
    """
    if sys.platform == "win32" and (local := os.environ.get("LOCALAPPDATA")):
        return Path(local) / "RadLLM"
    return Path(qt.QStandardPaths.writableLocation(qt.QStandardPaths.AppLocalDataLocation)) / "RadiomicsLLM"
