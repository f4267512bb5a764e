"""Installs the packages of the local server."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from functools import partial
from pathlib import Path

from slicer.i18n import tr as _

from ..backend.BackendEnvironment import CONSTRAINTS, BackendEnvironment, describing, programVariablesOf, sources
from ..backend.FirstUse import BASE_MODEL, PULL
from ..panel.BackgroundSteps import BackgroundSteps, Step

PYRADIOMICS = "pyradiomics-bhklab==3.1.4"
"""Built from its source code, which takes a C compiler and half a minute; its values are those of SlicerRadiomics."""
_CHECK = (
    "import sys; print(sys.version); "
    "sys.exit('RadiomicsLLM needs Python 3.11 or newer' if sys.version_info < (3, 11) else 0)"
)


class EnvironmentSetup(BackgroundSteps):
    """Installs the backend's packages into a folder, for an interpreter, and fetches the base model.

    For packages that are ready, only the base model is fetched, unless it is there. Failed or cancelled, it leaves what
    was there before and nothing half-made.
    """

    def __init__(
        self,
        environment: BackendEnvironment,
        python: str,
        inherited: Mapping[str, str],
        wheels: str = "",
        constraints: Path | None = CONSTRAINTS,
        *,
        isSlicers: bool = False,
        measures: bool = False,
    ) -> None:
        """
        Args:
            python: the interpreter that the packages are for.
            inherited: environment variables that suit this interpreter; see `BackendEnvironment.variables`.
            wheels: a folder that holds all wheels, for a computer without a network; empty for the package registry.
            constraints: a file with the versions to install; None for the newest that fit.
            isSlicers: whether it is Slicer's own, which another one of the same kind may replace.
            measures: whether it shall have PyRadiomics too.
        """
        self._environment, self._python = environment, python
        self._isSlicers, self._measures = isSlicers, measures
        self._wheels = wheels
        self._offline = ["--no-index", "--find-links", wheels] if wheels else []
        self._versions = ["-c", str(constraints)] if constraints else []
        packages = environment.newPackages()
        isReady = environment.isReady() and environment.measures >= measures
        steps = [self._fetching(Path(environment.paths()[0][0]))] if isReady else self._making(packages)
        variables = programVariablesOf(inherited, isSlicers=isSlicers)
        # pip's own files as well: short paths, and nothing that stays where nobody looks.
        variables |= dict.fromkeys(("TMPDIR", "TMP", "TEMP"), str(environment.folder / "t"))
        super().__init__(steps, variables, environment.discardUnfinished)

    def _making(self, packages: Path) -> Sequence[Step]:
        environment = self._environment
        pip = ["-m", "pip", "install", "--no-input", "--disable-pip-version-check", "--progress-bar", "off"]
        # Nothing stays in pip's cache, where “Remove downloads” would not find it.
        pip += ["--no-cache-dir", "--target", str(packages), *self._offline, *self._versions]
        pip += [*environment.requirements, *([PYRADIOMICS] if self._measures else [])]
        accept = partial(environment.accept, packages, "" if self._isSlicers else self._python, self._measures)
        works = f"{self._paths(packages)}{describing(packages)}import radllm_backend"
        if self._measures:
            works += ", radiomics"
        return [
            Step(_("Preparing the folder"), self._prepare, 0.1),
            Step(_("Looking at the chosen Python"), [self._python, "-c", _CHECK], 0.2),
            Step(_("Downloading and installing the packages"), [self._python, *pip], 75, expectedLines=200),
            Step(_("Looking whether it works"), [self._python, "-P", "-c", works], 0.5),
            self._fetching(packages),
            Step(_("Tidying up"), accept, 1),
        ]

    def _prepare(self) -> None:
        self._environment.claim()
        self._environment.temporary()

    def _fetching(self, packages: Path) -> Step:
        command = [self._python, "-P", "-c", self._paths(packages) + PULL, BASE_MODEL, self._wheels]
        return Step(_("Fetching the base model"), command, 18, expectedLines=3, optional=True)

    def _paths(self, packages: Path) -> str:
        return f"import sys; sys.path.insert(0, {str(packages)!r}); sys.path.append({str(sources())!r})\n"
