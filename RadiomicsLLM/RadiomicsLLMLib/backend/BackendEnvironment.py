"""The packages of the local server in a folder of their own."""

from __future__ import annotations

import contextlib
import json
import re
import shutil
import sys
import sysconfig
import time
import uuid
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import TypedDict

from slicer.i18n import tr as _

from .SlicerPackages import SlicerPackages

RESOURCES = Path(__file__).resolve().parents[2] / "Resources"
CONSTRAINTS = RESOURCES / "server-constraints.txt"
_REQUIREMENTS = RESOURCES / "server-requirements.txt"
_MARK, _STAMP, _INTERPRETER, _TEMPORARY = "made-by-RadiomicsLLM.txt", "packages.json", "python.json", "t"
_PACKAGES = re.compile(r"p-[0-9a-f]{4}")
_MARK_TEXT = (
    "The packages of RadiomicsLLM's local server lie here. Its panel in Slicer removes them: Remove downloads.\n"
)
DESCRIBE = "[sys.version_info[:2], sysconfig.get_platform()]"
"""Python's expression for what packages depend on, as JSON keeps it."""


class _Stamp(TypedDict, total=False):
    """What is written about the packages that count; nothing where there are none."""

    packages: str
    """Their folder's name."""
    requirements: list[str]
    base: str
    """The interpreter that they are for; empty for Slicer's own, wherever it lies by now."""
    interpreter: list[object]
    """Its version and platform, as `DESCRIBE` gives them."""
    measures: bool
    bytes: int


class BackendEnvironment:
    """A folder of the user's that holds packages, installed with ``pip install --target``, and their stamp.

    They are for Slicer's own Python, which has no virtual environments, or for another one. Slicer's own packages stay
    as they are. New packages are installed beside the old ones under a name of their own. The stamp is written last and
    names those that count: what was half installed never does. It holds what packages depend on, and nothing else, so
    that they outlive updates of Slicer and of the extension.
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
        """The interpreter of the programs; it works only while `isReady`."""
        return Path(self._stamp().get("base") or SlicerPackages().python())

    @property
    def isSlicers(self) -> bool:
        """Whether that is Slicer's own."""
        return not self._stamp().get("base")

    @property
    def measures(self) -> bool:
        """Whether PyRadiomics is among the packages."""
        return bool(self._stamp().get("measures"))

    @property
    def bytes(self) -> int:
        """What the packages took when they were installed; quick, other than `size`."""
        return self._stamp().get("bytes", 0)

    def isReady(self) -> bool:
        return not self.problem()

    def paths(self) -> tuple[list[str], list[str]]:
        """The folder of packages, which comes before the interpreter's own, and the backend's, which comes after."""
        return [str(self.folder / self._stamp().get("packages", "none"))], [str(sources())]

    def problem(self) -> str:
        """Why no server can be started with it and what to do, in one sentence; empty where it can. Quick."""
        if not version():
            return _("The package radllm_backend is missing: install the extension RadiomicsLLM again.")
        stamp = self._stamp()
        if not stamp:
            return _("The local server is not set up yet: click “Set up backend…”.")
        if not (self.folder / stamp["packages"]).is_dir() or (stamp["base"] and not Path(stamp["base"]).exists()):
            return _("The packages or the Python of the local server were moved or removed: click “Set up backend…”.")
        if not stamp["base"] and stamp["interpreter"] != json.loads(json.dumps(interpreter())):
            return _("The local server was set up for another Python than this Slicer has: click “Set up backend…”.")
        if stamp["requirements"] != self.requirements:
            return _("The local server was set up with other packages than it needs now: click “Set up backend…”.")
        return ""

    def variables(self, inherited: Mapping[str, str]) -> dict[str, str]:
        """What its programs' environment variables should be; nothing of Slicer's Python for another one.

        Slicer's own finds its library only where its launcher's PYTHONHOME says.

        Args:
            inherited: those of this process for Slicer's own Python, or those that Slicer was started with.
        """
        return programVariablesOf(inherited, isSlicers=self.isSlicers)

    def size(self) -> int:
        """Bytes of all that lies there. Looks at every file: not for the main thread."""
        return sum(_bytes(path) for path in self._own())

    def remove(self) -> None:
        """Delete the packages; files of others in the folder stay. Not for the main thread.

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

    def newPackages(self) -> Path:
        """A folder, not yet made, for packages that are still to be installed."""
        return self.folder / f"p-{uuid.uuid4().hex[:4]}"

    def temporary(self) -> Path:
        """A folder for pip's temporary files: short as well, and on the same disk, so that files are moved at once."""
        folder = self.folder / _TEMPORARY
        folder.mkdir(exist_ok=True)
        return folder

    def discardUnfinished(self) -> None:
        """Delete all packages but those that count, and everything where none do.

        On Windows, files in use stay: they go the next time.
        """
        from radllm_backend.errors import RadllmError

        if not (self.folder / _MARK).is_file():
            return
        kept = self._stamp().get("packages")
        for path in self._own():
            if path.name != kept:
                _delete(path)
        if not kept:
            with contextlib.suppress(RadllmError):
                self.remove()

    def accept(self, packages: Path, base: str, measures: bool) -> None:
        """From now on the packages in this folder count.

        Args:
            base: the interpreter that they are for; empty for Slicer's own.
            measures: whether PyRadiomics is among them.

        Raises:
            RadllmError: the stamp cannot be written.
        """
        from radllm_backend.files import write_atomically

        stamp: _Stamp = {
            "packages": packages.name,
            "requirements": self.requirements,
            "base": base,
            "interpreter": json.loads((packages / _INTERPRETER).read_text(encoding="utf-8")),
            "measures": measures,
            "bytes": _bytes(packages),
        }
        write_atomically(self.folder / _STAMP, json.dumps(stamp, indent=1) + "\n")
        self.discardUnfinished()

    def _own(self) -> list[Path]:
        if not self.folder.is_dir():
            return []
        return [path for path in self.folder.iterdir() if path.name == _TEMPORARY or _PACKAGES.fullmatch(path.name)]

    def _stamp(self) -> _Stamp:
        """What was written last; empty where nothing was, or nothing sound."""
        try:
            stamp: _Stamp = json.loads((self.folder / _STAMP).read_text(encoding="utf-8"))
        except (OSError, ValueError):
            return {}
        kinds = {"packages": str, "requirements": list, "base": str, "interpreter": list}
        isSound = isinstance(stamp, dict) and all(isinstance(stamp.get(key), kind) for key, kind in kinds.items())
        return stamp if isSound and _PACKAGES.fullmatch(stamp["packages"]) else {}


def programVariablesOf(inherited: Mapping[str, str], *, isSlicers: bool) -> dict[str, str]:
    """See `BackendEnvironment.variables`."""
    dropped = () if isSlicers else ("PYTHONHOME", "PYTHONPATH")
    return {**{name: value for name, value in inherited.items() if name not in dropped}, "PYTHONNOUSERSITE": "1"}


def interpreter() -> list[object]:
    """What packages for Slicer's own Python depend on; as `DESCRIBE` says in any."""
    return [sys.version_info[:2], sysconfig.get_platform()]


def describing(packages: Path) -> str:
    """Code that has an interpreter write down, beside packages, what they depend on."""
    path = str(packages / _INTERPRETER)
    return f"import json, sys, sysconfig; json.dump({DESCRIBE}, open({path!r}, 'w', encoding='utf-8'))\n"


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
