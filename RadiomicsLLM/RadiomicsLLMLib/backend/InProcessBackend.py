"""The backend in Slicer's own Python."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Any

from .Requirements import MEASURING, READING, missingExtensions, refuseMissing

if TYPE_CHECKING:
    from radllm_backend import Model


class InProcessBackend:
    """Predictions by the package ``radllm_backend`` in this process; it keeps the model that it used last."""

    leavesComputer, readsHere = False, True

    def __init__(self) -> None:
        self._model: Model | None = None

    def problem(self) -> str:
        """Why nothing can be classified and what to do, in one sentence; empty where `FirstUse` can do the rest."""
        return missingExtensions()

    def modelNames(self) -> list[str]:
        """The models that come with the extension."""
        if self.problem():
            return []
        from radllm_backend.models.shipped import shipped_models

        return shipped_models()

    def model(self, nameOrFolder: str | Path) -> Model:
        """A model, verified each time, but loaded only when it is another one than before.

        Raises:
            RadllmError: there is no such model, or it is damaged, unsafe or of another version, or packages are
                missing.
        """
        refuseMissing(MEASURING, READING)
        from radllm_backend import Model
        from radllm_backend.models.bundle import read_bundle

        bundle = read_bundle(nameOrFolder)
        if self._model is None or self._model.sha256 != bundle.sha256:
            self._model = Model(bundle)
        return self._model

    def card(self, nameOrFolder: str | Path) -> dict[str, Any]:
        """The content of a model's ``model.json``.

        Raises:
            RadllmError: there is no such model, or packages are missing.
        """
        refuseMissing(MEASURING)
        from radllm_backend.models.bundle import read_bundle

        return read_bundle(nameOrFolder).card.model_dump(mode="json")

    def cancel(self) -> None:
        """A lesion's score takes seconds at most: it is left to end."""

    def close(self) -> None:
        self._model = None
