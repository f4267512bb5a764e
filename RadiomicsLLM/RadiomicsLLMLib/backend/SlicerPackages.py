"""Packages of Slicer's own Python."""

from __future__ import annotations

import importlib
import os
import shutil
import subprocess
import sys
import threading
from collections.abc import Mapping, Sequence
from pathlib import Path

import slicer.util

from ..panel.ProcessGroup import reasonOf, startGroup

_PIP = ["-m", "pip", "--no-input", "--disable-pip-version-check"]
_SAID = "pip.txt"
"""Where pip writes: a file, so that it can go on when nobody listens any more."""


_SLICERS_OWN = ("slicer.packaging", "slicer.pydeps")
"""Slicer's own module for packages: its name in 5.12, and in other versions; none before 5.11."""


class SlicerPackages:
    """The one place where Slicer's own packages are changed; nobody calls it without the user's consent.

    pip runs as Slicer's own ``slicer.packaging.pip_install`` runs it, through PythonSlicer and with the user's settings
    of pip (a hospital's mirror). It is called directly because Slicer's dialog asks once more, and cannot be cancelled.
    """

    def __init__(self) -> None:
        self._installing: subprocess.Popen[str] | None = None

    def slicerVersion(self) -> str:
        return str(slicer.app.applicationVersion)

    def python(self) -> str:
        """Slicer's interpreter as a program of its own; ``sys.executable`` may be Slicer itself."""
        return shutil.which("PythonSlicer") or sys.executable

    def variables(self, python: str) -> Mapping[str, str]:
        """Environment variables for an interpreter: only Slicer's own should see Slicer's libraries."""
        return os.environ if python == self.python() else slicer.util.startupEnvironment()

    def mayAsk(self) -> bool:
        """Whether there is somebody to ask: Slicer answers its own questions with yes while it runs its tests."""
        return not slicer.app.testingEnabled()

    def isImported(self, module: str) -> bool:
        """Whether Slicer uses a module already: a new version of it would count only after a restart."""
        return module in sys.modules

    def isInstalling(self) -> bool:
        """Whether pip is at work on Slicer's packages, for this module or, in Slicer 5.12, for another one."""
        if self._isPipRunning():
            return True
        return any(_isPipAtWorkFor(name) for name in _SLICERS_OWN)

    def downloading(self, requirements: Sequence[str], folder: Path, wheels: str) -> list[str]:
        """The command that puts the wheels of these packages into a folder, and changes nothing else.

        Args:
            wheels: a folder that holds them, for a computer without a network; empty for the package registry.
        """
        source = ["--no-index", "--find-links", wheels] if wheels else ["--no-cache-dir"]
        command = [self.python(), *_PIP, "download", "--no-deps", "--only-binary", ":all:", "--progress-bar", "off"]
        return [*command, *source, "-d", str(folder), *requirements]

    def install(self, wheels: Sequence[Path], folder: Path) -> subprocess.Popen[str]:
        """Begin to install wheels that lie in a folder, which takes seconds; `failure` says what came of it.

        Never ended before it is done, so that no package is half there; not even with Slicer.
        """
        command = [self.python(), *_PIP, "install", "--no-deps", "--no-index", *map(str, wheels)]
        with (folder / _SAID).open("wb") as said:
            self._installing = startGroup(
                command, self.variables(self.python()), stdin=subprocess.DEVNULL, stdout=said, stderr=subprocess.STDOUT
            )
        return self._installing

    def failure(self, folder: Path) -> str:
        """Why the installation from a folder, which has ended, failed, in pip's words; empty where it did not."""
        assert self._installing is not None
        status = self._installing.wait()
        if not status:
            return ""
        return reasonOf((folder / _SAID).read_text(encoding="utf-8", errors="replace").splitlines(), status)

    def discard(self, folder: Path) -> None:
        """Delete a folder of wheels, but only once pip no longer reads it."""
        if not self._isPipRunning():
            shutil.rmtree(folder, ignore_errors=True)
            return
        assert self._installing is not None
        process = self._installing

        def discardLater() -> None:
            process.wait()
            shutil.rmtree(folder, ignore_errors=True)

        threading.Thread(target=discardLater, name="RadiomicsLLM wheels", daemon=True).start()

    def _isPipRunning(self) -> bool:
        return self._installing is not None and self._installing.poll() is None


def _isPipAtWorkFor(module: str) -> bool:
    try:
        return bool(importlib.import_module(module).isPipInstallInProgress())
    except (ImportError, AttributeError):
        return False
