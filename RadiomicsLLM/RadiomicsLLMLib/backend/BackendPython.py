"""Which Python the local server runs in."""

from __future__ import annotations

import os
from collections.abc import Mapping
from pathlib import Path
from typing import Protocol

import qt

from .BackendEnvironment import BackendEnvironment, sources
from .SlicerPackages import SlicerPackages

VARIABLE = "RADLLM_BACKEND_PYTHON"
"""Environment variable: an interpreter that has the backend's packages, instead of the module's own environment."""


class BackendPython(Protocol):
    """An interpreter that can run ``radllm serve``: `BackendEnvironment` is such."""

    @property
    def python(self) -> Path: ...

    @property
    def base(self) -> str:
        """The interpreter that it was made with; empty where that is unknown."""

    def problem(self) -> str:
        """Why it cannot be used and what to do, in one sentence; empty where it can."""

    def variables(self, inherited: Mapping[str, str]) -> dict[str, str]:
        """Its environment variables, made of those that Slicer was started with."""


class GivenPython:
    """An interpreter that the user's administrator (or a test) has prepared."""

    def __init__(self, python: str | Path) -> None:
        self.python, self.base = Path(python), ""

    def problem(self) -> str:
        return ""

    def variables(self, inherited: Mapping[str, str]) -> dict[str, str]:
        """Nothing of Slicer's Python; the backend of this extension."""
        kept = {name: value for name, value in inherited.items() if name not in ("PYTHONHOME", "PYTHONPATH")}
        return {**kept, "PYTHONPATH": str(sources())}


def backendPython() -> BackendPython:
    """The prepared interpreter, where there is one, or else the environment that the module makes for itself."""
    given = os.environ.get(VARIABLE)
    return GivenPython(given) if given else BackendEnvironment(environmentFolder())


def programVariables(python: BackendPython) -> dict[str, str]:
    """The environment variables of a program that runs in this interpreter."""
    return python.variables(SlicerPackages().variables(python.base))


def environmentFolder() -> Path:
    """Where the module's own environment lies: the user's local application data."""
    return Path(qt.QStandardPaths.writableLocation(qt.QStandardPaths.AppLocalDataLocation)) / "RadiomicsLLM"
