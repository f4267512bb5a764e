"""The private virtual environment of the local server, and what is downloaded for it."""

from __future__ import annotations

import contextlib
import json
import os
import re
import shutil
import time
import uuid
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import TypedDict

from slicer.i18n import tr as _

RESOURCES = Path(__file__).resolve().parents[2] / "Resources"
CONSTRAINTS = RESOURCES / "server-constraints.txt"
_REQUIREMENTS = RESOURCES / "server-requirements.txt"
_MARK, _STAMP, _DOWNLOADS = "made-by-RadiomicsLLM.txt", "environment.json", "downloads"
_ENVIRONMENT = re.compile(r"environment-[0-9a-f]{8}")
_PYTHON = Path("Scripts", "python.exe") if os.name == "nt" else Path("bin", "python")
_MARK_TEXT = "RadiomicsLLM's local server lives in this folder. Its panel in Slicer removes it: Remove downloads.\n"


class _Stamp(TypedDict, total=False):
    """What is written about the environment that counts; nothing where there is none."""

    environment: str
    """Its folder's name."""
    radllm_backend: str
    """The version of the backend."""
    requirements: list[str]
    base: str
    """The interpreter that it was made with."""
    sources: str
    """The folder that holds the backend."""
    bytes: int


class BackendEnvironment:
    """A folder of the user's that holds an environment, its stamp and the base models; Slicer's own packages stay as
    they are.

    A new environment is made beside the old one under a name of its own. The stamp is written last and names the one
    that counts: what was half made never does.
    """

    def __init__(self, folder: str | Path, requirements: Sequence[str] | None = None) -> None:
        """
        Args:
            folder: need not exist yet.
            requirements: what is installed beside ``radllm_backend``; None for what a server and a batch need.
        """
        self.folder = Path(folder)
        self.requirements = readRequirements(_REQUIREMENTS) if requirements is None else list(requirements)

    @property
    def python(self) -> Path:
        """Its interpreter; there only while `isReady`."""
        return self.pythonOf(self._stamp().get("environment", "environment"))

    @property
    def base(self) -> str:
        """The interpreter that it was made with; empty where there is no environment."""
        return self._stamp().get("base", "")

    @property
    def bytes(self) -> int:
        """What the environment and the downloads took when it was made; quick, other than `size`."""
        return self._stamp().get("bytes", 0)

    def isReady(self) -> bool:
        return not self.problem()

    def problem(self) -> str:
        """Why no server can be started with it and what to do, in one sentence; empty where it can. Quick."""
        if not version():
            return _("The package radllm_backend is missing: install the extension RadiomicsLLM again.")
        stamp = self._stamp()
        if not stamp:
            return _("The local server is not set up yet: click “Set up backend…”.")
        if not self.python.exists() or not Path(stamp["base"]).exists() or not Path(stamp["sources"]).is_dir():
            return _("Slicer or the Python of the local server was moved or removed: click “Set up backend…” again.")
        if stamp["radllm_backend"] != version() or stamp["requirements"] != self.requirements:
            return _(
                "The local server was set up for version {old} of the backend, or for other packages than the "
                "present version {new} needs: click “Set up backend…” again."
            ).format(old=stamp["radllm_backend"], new=version())
        return ""

    def variables(self, inherited: Mapping[str, str]) -> dict[str, str]:
        """What its programs' environment variables should be: nothing of Slicer's Python, and downloads kept here.

        Args:
            inherited: those of this process, or those that Slicer was started with.
        """
        kept = {name: value for name, value in inherited.items() if name not in ("PYTHONHOME", "PYTHONPATH")}
        return {"RADLLM_CACHE": str(self.folder / _DOWNLOADS), **kept, "PYTHONNOUSERSITE": "1"}

    def size(self) -> int:
        """Bytes of the environment and the downloads. Looks at every file: not for the main thread."""
        return sum(_bytes(path) for path in self._own())

    def remove(self) -> None:
        """Delete the environments and the downloads; files of others in the folder stay. Not for the main thread.

        Raises:
            RadllmError: the folder was not made by this class, or cannot be deleted.
        """
        from radllm_backend.errors import RadllmError

        if not self.folder.exists():
            return
        if not (self.folder / _MARK).is_file():
            raise RadllmError(f"{self.folder} was not made by RadiomicsLLM and is not removed: delete it yourself.")
        try:
            (self.folder / _STAMP).unlink(missing_ok=True)  # first: from here on nothing counts
            for path in self._own():
                shutil.rmtree(path)
            (self.folder / _MARK).unlink()
            if not any(self.folder.iterdir()):
                self.folder.rmdir()
        except OSError as error:
            raise RadllmError(
                f"{error.filename} cannot be deleted ({error.strerror}): close the programs that use it and try again."
            ) from error

    def claim(self) -> None:
        """Make the folder, if need be, and delete what an earlier set-up left unfinished in it.

        Raises:
            RadllmError: the folder holds something else, or cannot be written.
        """
        from radllm_backend.errors import RadllmError

        self.discardUnfinished()
        mark = self.folder / _MARK
        try:
            if self.folder.exists() and not mark.is_file() and any(self.folder.iterdir()):
                raise RadllmError(f"{self.folder} holds other files: choose an empty folder for the local server.")
            self.folder.mkdir(parents=True, exist_ok=True)
            mark.write_text(_MARK_TEXT, encoding="utf-8")
        except OSError as error:
            raise RadllmError(f"{self.folder} cannot be written ({error.strerror}): choose another folder.") from error

    def newName(self) -> str:
        """For an environment that is still to be made."""
        return f"environment-{uuid.uuid4().hex[:8]}"

    def pythonOf(self, name: str) -> Path:
        """The interpreter of the environment of this name."""
        return self.folder / name / _PYTHON

    def addBackend(self, name: str) -> None:
        """Let the environment of this name find the package ``radllm_backend`` where it lies, after all others.

        Raises:
            RadllmError: the environment is not as expected.
        """
        from radllm_backend.errors import RadllmError

        pattern = "Lib/site-packages" if os.name == "nt" else "lib/python3*/site-packages"
        folders = list((self.folder / name).glob(pattern))
        if len(folders) != 1:
            raise RadllmError(f"{self.folder / name} is no virtual environment: choose another Python.")
        # A line of code, for a plain path would be read in an encoding that depends on the system.
        line = f"import sys; sys.path.append({str(sources())!a})\n"
        (folders[0] / "radllm_backend.pth").write_text(line, encoding="ascii")

    def discardUnfinished(self) -> None:
        """Delete all environments but the one that counts, and everything where none does.

        On Windows, files in use stay: they go the next time.
        """
        from radllm_backend.errors import RadllmError

        if not (self.folder / _MARK).is_file():
            return
        kept = self._stamp().get("environment")
        for path in self._own():
            if not kept or path.name not in (kept, _DOWNLOADS):
                _delete(path)
        if not kept:
            with contextlib.suppress(RadllmError):
                self.remove()

    def accept(self, name: str, base: str) -> None:
        """From now on the environment of this name counts.

        Raises:
            RadllmError: the stamp cannot be written.
        """
        from radllm_backend.files import write_atomically

        stamp: _Stamp = {
            "environment": name,
            "radllm_backend": version(),
            "requirements": self.requirements,
            "base": base,
            "sources": str(sources()),
            "bytes": sum(_bytes(self.folder / own) for own in (name, _DOWNLOADS)),
        }
        write_atomically(self.folder / _STAMP, json.dumps(stamp, indent=1) + "\n")
        self.discardUnfinished()

    def _own(self) -> list[Path]:
        if not self.folder.is_dir():
            return []
        return [path for path in self.folder.iterdir() if path.name == _DOWNLOADS or _ENVIRONMENT.fullmatch(path.name)]

    def _stamp(self) -> _Stamp:
        """What was written last; empty where nothing was, or nothing sound."""
        try:
            stamp: _Stamp = json.loads((self.folder / _STAMP).read_text(encoding="utf-8"))
        except (OSError, ValueError):
            return {}
        kinds = {"environment": str, "radllm_backend": str, "requirements": list, "base": str, "sources": str}
        isSound = isinstance(stamp, dict) and all(isinstance(stamp.get(key), kind) for key, kind in kinds.items())
        return stamp if isSound and _ENVIRONMENT.fullmatch(stamp["environment"]) else {}


def readRequirements(path: Path) -> list[str]:
    """The lines of a requirements file without its comments."""
    lines = [line.strip() for line in path.read_text(encoding="utf-8").splitlines()]
    return [line for line in lines if line and not line.startswith("#")]


def version() -> str:
    """Of the backend that lies beside the module; empty where it is missing."""
    try:
        from radllm_backend import __version__
    except ImportError:
        return ""
    return __version__


def sources() -> Path:
    """The folder that holds the package ``radllm_backend``: that of the modules, or a checkout."""
    import radllm_backend

    return Path(radllm_backend.__file__).resolve().parents[1]


def _bytes(folder: Path) -> int:
    return sum(path.lstat().st_size for path in folder.rglob("*") if not path.is_dir())


def _delete(folder: Path) -> None:
    """Programs that were just killed may be writing their last file."""
    for _attempt in range(10):
        shutil.rmtree(folder, ignore_errors=True)
        if not folder.exists():
            return
        time.sleep(0.1)
