"""What the backend imports and Slicer does not bring."""

from __future__ import annotations

import csv
import re
import sys
from collections.abc import Collection, Sequence
from dataclasses import dataclass
from functools import cache
from importlib import metadata
from importlib.util import find_spec
from pathlib import Path

from slicer.i18n import tr as _

PACKAGE_TABLE = Path(__file__).resolve().parents[2] / "Resources" / "slicer-packages.csv"
"""One row a package: the oldest version that does, the version that was tested and is installed, what it is for, and
the bytes of its wheel for Python 3.12. The rows hold all that these packages import of each other, so that pip is told
to install nothing else: ``tokenizers`` asks for huggingface_hub, and ``gguf`` for tqdm, which reading never imports.
Slicer brings pillow (12.2.0 in 5.12, 11.2.1 in 5.10; ``SuperBuild/External_python-dicom-requirements.cmake``): it is
installed only where it is missing, as in a Slicer that was built otherwise.
"""
MEASURING, READING, REPORTS = "measuring", "reading", "reports"
"""What packages are for: to measure lesions and talk to a server; to read them with the language model; to export."""
READS_HERE, READS_ELSEWHERE = (MEASURING, READING, REPORTS), (MEASURING, REPORTS)
"""What Slicer's own Python is used for where it runs the language model, and where another one does."""
_BASE_MODEL = "base model"
_ONE_RELEASE = {"pydantic": "pydantic-core", "pydantic-core": "pydantic"}
"""Two halves of one release: where one of them is installed, the other has to be."""


@dataclass(frozen=True)
class Package:
    """A package of Slicer's own Python."""

    name: str
    module: str
    minimum: str
    tested: str
    bytes: int
    """To download, on this computer."""

    @property
    def requirement(self) -> str:
        """What pip is asked for."""
        return f"{self.name}=={self.tested}"

    def isMissing(self) -> bool:
        """Whether it is not installed, or too old; it is not imported."""
        return isMissing(self.module) or _isOld(self.name, self.minimum)


def packages(uses: Collection[str]) -> Sequence[Package]:
    """The packages for some uses, by name."""
    return [package for use, package in _table() if use in uses]


def baseModelBytes() -> int:
    """How much is downloaded for the base model of the shipped models."""
    return sum(package.bytes for use, package in _table() if use == _BASE_MODEL)


def missingPackages(uses: Collection[str]) -> Sequence[Package]:
    """Those packages for some uses that have to be installed. Looks at every folder of packages: a few milliseconds."""
    wanted = packages(uses)
    missing = {package.name for package in wanted if package.isMissing()}
    missing |= {_ONE_RELEASE[name] for name in missing if name in _ONE_RELEASE}
    return [package for package in wanted if package.name in missing]


def forgetVersions() -> None:
    """Packages were installed: look at their versions again."""
    _isOld.cache_clear()


@cache
def _isOld(name: str, minimum: str) -> bool:
    """Of a package that is installed; kept, for it takes a millisecond, and panels ask at every click."""
    try:
        installed = metadata.version(name)
    except metadata.PackageNotFoundError:  # brought by something else than pip: nothing is known against it
        return False
    return _numbers(installed) < _numbers(minimum)


def isMissing(module: str) -> bool:
    """Whether a module is not installed; it is not imported."""
    try:
        return find_spec(module) is None
    except ValueError:  # in sys.modules without a specification
        return True


def missingExtensions() -> str:
    """One sentence on what of the extensions themselves is missing, which no package can replace; or an empty text."""
    if isMissing("radllm_backend"):
        return _("The package radllm_backend is missing: install the extension RadiomicsLLM again.")
    return ""


def missingSentence(uses: Collection[str]) -> str:
    """One sentence on what is missing and how it is installed; empty where nothing is."""
    if sentence := missingExtensions():
        return sentence
    if missing := missingPackages(uses):
        names = ", ".join(package.name for package in missing)
        return _("Packages are missing: install {packages} under “Set up”.").format(packages=names)
    return ""


def refuseMissing(*uses: str) -> None:
    """Raise `RadllmError`, which says how they are installed, where packages for some uses are missing."""
    if sentence := missingSentence(uses):
        from radllm_backend.errors import RadllmError

        raise RadllmError(sentence)


def dicomObstacle() -> str:
    """Why no DICOM segmentation or report can be written in this Slicer; empty where they can.

    Nothing is installed for it: highdicom would replace the pydicom of Slicer 5.10, which Slicer itself needs.
    """
    if sentence := missingExtensions():
        return sentence
    if isMissing("highdicom"):
        return _("Writing DICOM needs Slicer 5.12 or newer, which brings highdicom.")
    return ""


@cache
def _table() -> Sequence[tuple[str, Package]]:
    with PACKAGE_TABLE.open(encoding="utf-8", newline="") as file:
        rows = list(csv.DictReader(file))
    return [
        (row["use"], Package(row["package"], row["module"], row["minimum"], row["tested"], int(row[_platform()])))
        for row in rows
    ]


def _platform() -> str:
    """The table's column for this computer. Slicer for macOS is made for Intel, and runs on newer Macs as such."""
    if sys.platform == "win32":
        return "windows"
    return "mac-intel" if sys.platform == "darwin" else "linux"


def _numbers(version: str) -> list[int]:
    """A version's leading numbers, in their order; all that a minimum asks for."""
    return [int(part) for part in re.findall(r"\d+", re.split(r"[^0-9.]", version)[0])]
