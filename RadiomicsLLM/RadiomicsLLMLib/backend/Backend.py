"""What the module asks of a backend, wherever that runs."""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING, Any, Protocol

if TYPE_CHECKING:
    from radllm_backend import Features, Prediction
    from radllm_backend.features.extraction_settings import Settings


class ServedModel(Protocol):
    """A model of a backend: `radllm_backend.Model` and `radllm_backend.server.client.RemoteModel` are such."""

    @property
    def name(self) -> str: ...

    @property
    def settings(self) -> Settings:
        """How a lesion's features have to be extracted, here."""

    def predict(self, features: Features) -> Prediction:
        """The prediction of one lesion with each feature's effect."""


class Backend(Protocol):
    """Where the language model runs. Where lesions are measured is another question: see `Measuring`."""

    leavesComputer: bool
    """Whether names and numbers of a lesion go to another machine."""
    readsHere: bool
    """Whether Slicer's own Python runs the language model."""

    def problem(self) -> str:
        """Why nothing can be classified and what to do, in one sentence; empty where nothing is known to be missing.

        Packages and a base model that `FirstUse` installs are no such problem. Quick: it looks, and starts or calls
        nothing.
        """

    def modelNames(self) -> Sequence[str]:
        """Models that can be asked for by name. Quick."""

    def model(self, nameOrFolder: str) -> ServedModel:
        """A model, ready to answer. May take long: not for the main thread.

        Raises:
            RadllmError: it is not there, or the backend cannot be started or reached.
        """

    def card(self, nameOrFolder: str) -> dict[str, Any]:
        """The content of a model's ``model.json``. Quick, once `model` was called.

        Raises:
            RadllmError: it is not there.
        """

    def cancel(self) -> None:
        """Have what is under way in other threads end soon, with an exception."""

    def close(self) -> None:
        """End what was started."""
