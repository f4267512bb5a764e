"""What Slicer alone can do: packages for its own Python, through Slicer's own dialogs."""

from __future__ import annotations

import importlib
import os
import shutil
import sys
from collections.abc import Mapping, Sequence
from importlib.util import find_spec

import slicer.util
from slicer.i18n import tr as _


class SlicerPackages:
    """The one place where Slicer's own packages are changed; nothing is, without the user's consent."""

    def slicerVersion(self) -> str:
        return str(slicer.app.applicationVersion)

    def python(self) -> str:
        """Slicer's interpreter as a program of its own; ``sys.executable`` may be Slicer itself."""
        return shutil.which("PythonSlicer") or sys.executable

    def variables(self, python: str) -> Mapping[str, str]:
        """Environment variables for an interpreter: only Slicer's own should see Slicer's libraries."""
        return os.environ if python == self.python() else slicer.util.startupEnvironment()

    def install(self, requirements: Sequence[str]) -> bool:
        """Install packages, after asking; false where the user declined.

        Raises:
            CalledProcessError: pip failed.
        """
        try:
            from slicer.packaging import pip_ensure
        except ImportError:  # before Slicer 5.11
            text = _("These packages will be downloaded and installed in Slicer's own Python: {packages}.")
            if not slicer.util.confirmOkCancelDisplay(text.format(packages=", ".join(requirements))):
                return False
            slicer.util.pip_install(list(requirements))
        else:
            try:
                pip_ensure(list(requirements), requester="RadiomicsLLM")
            except RuntimeError:  # what it says where the user declines
                return False
        importlib.invalidate_caches()
        return True

    def canInstallTorch(self) -> bool:
        """Whether the extension PyTorch is there: it alone chooses the build that fits the computer."""
        return find_spec("PyTorchUtils") is not None

    def installTorch(self) -> bool:
        """Install PyTorch, after asking; false where the user declined."""
        from PyTorchUtils import PyTorchUtilsLogic

        installed = PyTorchUtilsLogic().installTorch(askConfirmation=True) is not None
        importlib.invalidate_caches()
        return installed
