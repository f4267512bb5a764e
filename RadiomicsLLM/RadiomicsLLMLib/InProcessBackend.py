"""The backend in Slicer's own Python."""

from __future__ import annotations

from importlib.util import find_spec
from pathlib import Path
from typing import TYPE_CHECKING

from slicer.i18n import tr as _

if TYPE_CHECKING:
    from radllm_backend import Lesion, Model, Prediction

PIP_PACKAGES = {
    "filelock": "filelock>=3.16",
    "peft": "peft>=0.21",
    "platformdirs": "platformdirs>=4",
    "pydantic": "pydantic>=2.9",
    "safetensors": "safetensors>=0.5",
    "sklearn": "scikit-learn>=1.5",
    "threadpoolctl": "threadpoolctl>=3.5",
    "transformers": "transformers>=5.20",
    "yaml": "pyyaml>=6",
}
"""What the backend imports and Slicer does not bring, by import name."""


class InProcessBackend:
    """Predictions by the package ``radllm_backend`` in this process; it keeps the model that it used last."""

    def __init__(self) -> None:
        self._model: Model | None = None

    def problem(self) -> str:
        """Why nothing can be classified and what to do, in one sentence; empty where all packages are there.

        Quick: looks for the packages without importing them.
        """
        if find_spec("radllm_backend") is None:
            return _("The package radllm_backend is missing: install the extension RadiomicsLLM again.")
        if find_spec("radiomics") is None:
            return _("PyRadiomics is missing: install the extension SlicerRadiomics and restart Slicer.")
        if find_spec("torch") is None:
            return _("PyTorch is missing: install the extension PyTorch, restart Slicer, and install it in its module.")
        missing = [requirement for package, requirement in PIP_PACKAGES.items() if find_spec(package) is None]
        if missing:
            return _("Packages are missing: run slicer.util.pip_install('{packages}') in the Python console.").format(
                packages=" ".join(missing)
            )
        return ""

    def modelNames(self) -> list[str]:
        """The models that come with the extension; none while something is missing."""
        if self.problem():
            return []
        from radllm_backend.bundle import shipped_models

        return shipped_models()

    def model(self, nameOrFolder: str | Path) -> Model:
        """A model, verified each time, but loaded only when it is another one than before.

        Raises:
            RadllmError: there is no such model, or it is damaged, unsafe or of another version.
        """
        from radllm_backend import Model
        from radllm_backend.bundle import read_bundle

        bundle = read_bundle(nameOrFolder)
        if self._model is None or self._model.sha256 != bundle.sha256:
            self._model = Model(bundle)
        return self._model

    def predict(self, lesion: Lesion, model: Model) -> Prediction:
        """The prediction of one lesion; RadllmError where the model cannot read it."""
        from radllm_backend import extract

        return model.predict(extract(lesion, model.settings))
