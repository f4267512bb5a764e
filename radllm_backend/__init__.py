"""RadiomicsLLM's backend: radiomics features of a lesion, read by a language model.

Five lines do what the command line does::

    from radllm_backend import Lesion, Model, extract
    model = Model.load("breast-us")
    lesion = Lesion.from_files("image.png", "mask.png")
    prediction = model.predict(extract(lesion, model.settings))
    print(prediction.probability, prediction.call)

The names of ``__all__`` are what other software may rely on; everything else is private, and may change.
"""

from __future__ import annotations

from importlib import import_module
from typing import TYPE_CHECKING, Any

__version__ = "0.1.0"

if TYPE_CHECKING:
    from radllm_backend.errors import RadllmError
    from radllm_backend.features.extraction import extract, load_settings
    from radllm_backend.features.extraction_settings import Settings
    from radllm_backend.features.table import read_table
    from radllm_backend.imaging.lesion import Lesion
    from radllm_backend.learning.build import train
    from radllm_backend.models.model import Model
    from radllm_backend.models.prediction import Prediction
    from radllm_backend.records import Features
    from radllm_backend.reports.evaluate import evaluate
    from radllm_backend.reports.files import write_reports
    from radllm_backend.server.client import Client

__all__ = [
    "Client",
    "Features",
    "Lesion",
    "Model",
    "Prediction",
    "RadllmError",
    "Settings",
    "__version__",
    "evaluate",
    "extract",
    "load_settings",
    "read_table",
    "train",
    "write_reports",
]
_HOMES = {
    "Client": "server.client",
    "Features": "records",
    "Lesion": "imaging.lesion",
    "Model": "models.model",
    "Prediction": "models.prediction",
    "RadllmError": "errors",
    "Settings": "features.extraction_settings",
    "evaluate": "reports.evaluate",
    "extract": "features.extraction",
    "load_settings": "features.extraction",
    "read_table": "features.table",
    "train": "learning.build",
    "write_reports": "reports.files",
}


def __getattr__(name: str) -> Any:
    """Import on first use, so that ``import radllm_backend`` is instant and never needs torch."""
    if name not in _HOMES:
        raise AttributeError(f"module 'radllm_backend' has no attribute '{name}'")
    return getattr(import_module(f"radllm_backend.{_HOMES[name]}"), name)


def __dir__() -> list[str]:
    """The public names, and what is imported already."""
    return sorted({*globals(), *__all__})
