"""A backend in a process of its own on this computer."""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING

from .BackendPython import BackendPython, programCode, programVariables
from .ServerBackend import ServerBackend

if TYPE_CHECKING:
    import subprocess

    from radllm_backend.server.local import LocalServer

_SECONDS_TO_STOP = 5
_RADLLM = "from radllm_backend.cli.main import main; main()"
_MOST_MODELS = 3


class LocalServerBackend(ServerBackend):
    """Starts ``radllm serve`` when it is needed, starts it again when it has died, and stops it with Slicer.

    A crash or a full GPU costs the process, never the scene.
    """

    def __init__(self, python: BackendPython) -> None:
        """
        Args:
            python: where the server runs.
        """
        super().__init__()
        self._python = python
        self._server: LocalServer | None = None
        self._asked: list[str] = []
        self._starting: subprocess.Popen[str] | None = None
        self._isCancelled = False

    @property
    def python(self) -> BackendPython:
        """Where the server runs, and other programs of the backend can."""
        return self._python

    @property
    def processId(self) -> int | None:
        """Of the server; None where none runs."""
        return self._server.process.pid if self._server and self._server.is_running() else None

    def problem(self) -> str:
        """Why nothing can be classified and what to do, in one sentence."""
        return super().problem() or self._python.problem()

    def modelNames(self) -> Sequence[str]:
        """The models that come with the extension: the server reads the same files."""
        if self.problem():
            return []
        from radllm_backend.models.shipped import shipped_models

        return shipped_models()

    def cancel(self) -> None:
        """Calls under way end with an exception, and so does a server that is not ready yet."""
        super().cancel()
        self._isCancelled = True
        if self._starting:
            from radllm_backend.server.local import end

            end(self._starting)

    def close(self) -> None:
        """Stop the server; what it has accepted gets a few seconds."""
        self._stop()

    def _stop(self) -> None:
        super().close()
        if self._server:
            self._server.stop(_SECONDS_TO_STOP)
        self._server = None

    def _ask(self, nameOrFolder: str) -> None:
        from radllm_backend.models.bundle import read_bundle

        self._isCancelled = False
        bundle = read_bundle(nameOrFolder)  # a folder that holds no model is known before anything starts
        known = self._served.get(nameOrFolder)
        if self.processId and known and known.sha256 == bundle.sha256:
            return
        self._start(nameOrFolder)

    def _start(self, nameOrFolder: str) -> None:
        """A server with this model and those asked for before; of one name only the last."""
        from radllm_backend.server.local import LocalServer

        self._stop()
        names = {_nameOf(one): one for one in [*self._asked, nameOrFolder]}
        names.pop("", None)
        self._asked = list(names.values())[-_MOST_MODELS:]
        arguments = [word for one in self._asked for word in ("--model", one)]
        try:
            self._server = LocalServer.start(
                arguments,
                python=self._python.python,
                program=programCode(self._python, _RADLLM),
                environment=programVariables(self._python),
                started=self._onStarted,
            )
        finally:
            self._starting = None
        self._client = self._server.client(patience=10)
        served = {model.name: model for model in self._client.models()}
        self._served = {one: served[_nameOf(one)] for one in self._asked}

    def _onStarted(self, process: subprocess.Popen[str]) -> None:
        self._starting = process
        if self._isCancelled:  # meanwhile
            self.cancel()


def _nameOf(nameOrFolder: str) -> str:
    """The name of a model in its card; empty where the model is gone or damaged."""
    from radllm_backend import RadllmError
    from radllm_backend.models.bundle import read_bundle

    try:
        return read_bundle(nameOrFolder).card.name
    except RadllmError:
        return ""
