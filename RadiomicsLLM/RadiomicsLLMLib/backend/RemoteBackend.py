"""A backend on another machine."""

from __future__ import annotations

from collections.abc import Sequence

from slicer.i18n import tr as _

from .Requirements import MEASURING, refuseMissing
from .ServerBackend import ServerBackend


class RemoteBackend(ServerBackend):
    """A ``radllm serve`` that somebody else started, by its address and token."""

    leavesComputer = True

    def __init__(self) -> None:
        super().__init__()
        self.address, self._token = "", ""

    def use(self, address: str, token: str) -> None:
        """The server from now on; nothing is called yet."""
        if (address, token) != (self.address, self._token):
            self.close()
            self.address, self._token = address, token

    def problem(self) -> str:
        """Why nothing can be classified and what to do, in one sentence."""
        missing = super().problem()
        if missing:
            return missing
        if not self.address or not self._token:
            return _("Enter the address and the token of the server, then click Connect.")
        if not self._served:
            return _("Click Connect to see the server's models.")
        return ""

    def connect(self) -> Sequence[str]:
        """Ask the server for its models, anew. Takes long: not for the main thread.

        Raises:
            RadllmError: the address is none, or the server does not answer, or not to this token or this version.
        """
        refuseMissing(MEASURING)
        from radllm_backend.server.client import Client

        self._served = {}
        if self._client is None:
            self._client = Client(self.address, token=self._token, patience=10)
        self._served = {model.name: model for model in self._client.models()}
        return self.modelNames()

    def _ask(self, nameOrFolder: str) -> None:
        from radllm_backend import RadllmError

        if nameOrFolder not in self._served:
            self.connect()
        if nameOrFolder not in self._served:
            names = ", ".join(self._served)
            raise RadllmError(f"The server has no model {nameOrFolder}: choose one of {names}.")
