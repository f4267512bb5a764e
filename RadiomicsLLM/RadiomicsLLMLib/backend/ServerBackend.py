"""What the two backends that answer over a socket have in common."""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Sequence
from typing import TYPE_CHECKING, Any

from .Requirements import MEASURING, missingExtensions, refuseMissing

if TYPE_CHECKING:
    from radllm_backend.server.client import Client, RemoteModel


class ServerBackend(ABC):
    """A client of a server; only names and numbers are sent, never an image."""

    leavesComputer = readsHere = False

    def __init__(self) -> None:
        self._client: Client | None = None
        self._served: dict[str, RemoteModel] = {}

    def problem(self) -> str:
        """Why nothing can be classified and what to do, in one sentence."""
        return missingExtensions()

    def modelNames(self) -> Sequence[str]:
        """The models that the server answered for when it was last asked."""
        return list(self._served)

    def model(self, nameOrFolder: str) -> RemoteModel:
        """A model of the server.

        Raises:
            RadllmError: the server cannot be reached, is of another version, or has no such model.
        """
        refuseMissing(MEASURING)
        self._ask(nameOrFolder)
        return self._served[nameOrFolder]

    def card(self, nameOrFolder: str) -> dict[str, Any]:
        """The content of a model's ``model.json``, as the server gave it; RadllmError where it has not given it yet."""
        from radllm_backend import RadllmError

        if nameOrFolder not in self._served:
            raise RadllmError(f"The server has not been asked for {nameOrFolder} yet: connect first.")
        return self._served[nameOrFolder].served.card

    def cancel(self) -> None:
        """Calls under way end with an exception."""
        if self._client:
            self._client.cancel()

    def close(self) -> None:
        """Forget the server."""
        if self._client:
            self._client.close()
        self._client, self._served = None, {}

    @abstractmethod
    def _ask(self, nameOrFolder: str) -> None:
        """Have the model in `_served` under the name that it was asked for by."""
