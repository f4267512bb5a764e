"""RadiomicsLLM's backend: radiomics features of a lesion, read by a language model.

Five lines do what the command line does::

    from radllm_backend import Lesion, Model, extract
    model = Model.load("breast-us")
    lesion = Lesion.from_files("image.png", "mask.png")
    prediction = model.predict(extract(lesion, model.settings))
    print(prediction.probability, prediction.call)
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

__version__ = "0.1.0"

if TYPE_CHECKING:
    from radllm_backend.errors import RadllmError
    from radllm_backend.features.extraction import extract
    from radllm_backend.imaging.lesion import Lesion
    from radllm_backend.models.model import Model
    from radllm_backend.models.prediction import Prediction
    from radllm_backend.records import Features

_HOMES = {
    "Features": "records",
    "Lesion": "imaging.lesion",
    "Model": "models.model",
    "Prediction": "models.prediction",
    "RadllmError": "errors",
    "extract": "features.extraction",
}
__all__ = ["Features", "Lesion", "Model", "Prediction", "RadllmError", "extract"]


def __getattr__(name: str) -> Any:
    """Import on first use, so that ``import radllm_backend`` is instant and never needs torch."""
    if name not in _HOMES:
        raise AttributeError(f"module 'radllm_backend' has no attribute '{name}'")
    from importlib import import_module

    return getattr(import_module(f"radllm_backend.{_HOMES[name]}"), name)
