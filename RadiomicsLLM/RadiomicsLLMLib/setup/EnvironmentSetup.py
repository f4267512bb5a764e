"""Makes the private environment of the local server."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path

from slicer.i18n import tr as _

from ..backend.BackendEnvironment import CONSTRAINTS, BackendEnvironment
from ..panel.BackgroundSteps import BackgroundSteps, Step

_CHECK = (
    "import sys; print(sys.version); "
    "sys.exit('RadiomicsLLM needs Python 3.11 or newer' if sys.version_info < (3, 11) else 0)"
)


class EnvironmentSetup(BackgroundSteps):
    """Makes the environment, installs the backend's packages and fetches the base model.

    For an environment that is ready, only the base model is fetched, unless it is there. Failed or cancelled, it leaves
    what was there before and nothing half-made.
    """

    def __init__(
        self,
        environment: BackendEnvironment,
        base: str,
        inherited: Mapping[str, str],
        wheels: str = "",
        constraints: Path | None = CONSTRAINTS,
    ) -> None:
        """
        Args:
            base: the interpreter to make it with.
            inherited: environment variables that suit this interpreter; see `BackendEnvironment.variables`.
            wheels: a folder that holds all wheels, for a computer without a network; empty for the package registry.
            constraints: a file with the versions to install; None for the newest that fit.
        """
        self._environment, self._base = environment, base
        self._offline = ["--no-index", "--find-links", wheels] if wheels else []
        self._versions = ["-c", str(constraints)] if constraints else []
        self._wheelhouse = ["--wheelhouse", wheels] if wheels else []
        steps = [self._fetching(environment.python)] if environment.isReady() else self._making(environment.newName())
        super().__init__(steps, environment.variables(inherited), environment.discardUnfinished)

    def _making(self, name: str) -> Sequence[Step]:
        environment = self._environment
        python = environment.pythonOf(name)
        pip = ["-m", "pip", "install", "--no-input", "--disable-pip-version-check", "--progress-bar", "off"]
        # Nothing stays in pip's cache, where “Remove downloads” would not find it.
        pip += ["--no-cache-dir", *self._offline, *self._versions, *environment.requirements]
        return [
            Step(_("Preparing the folder"), environment.claim, 0.1),
            Step(_("Looking at the chosen Python"), [self._base, "-c", _CHECK], 0.2),
            Step(_("Making the environment"), [self._base, "-m", "venv", str(environment.folder / name)], 5),
            Step(_("Downloading and installing the packages"), [str(python), *pip], 75, expectedLines=200),
            Step(_("Adding the backend"), lambda: environment.addBackend(name), 0.1),
            Step(_("Looking whether it works"), [str(python), "-c", "import radllm_backend"], 0.5),
            self._fetching(python),
            Step(_("Tidying up"), lambda: environment.accept(name, self._base), 1),
        ]

    def _fetching(self, python: Path) -> Step:
        command = [str(python), "-m", "radllm_backend", "models", "pull", *self._wheelhouse]
        return Step(_("Fetching the base model"), command, 18, expectedLines=3, optional=True)
