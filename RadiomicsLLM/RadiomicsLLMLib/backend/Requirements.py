"""What the backend imports and Slicer does not bring."""

from __future__ import annotations

from collections.abc import Mapping
from importlib.util import find_spec

from slicer.i18n import tr as _

EXTRACTION_PACKAGES = {
    "filelock": "filelock>=3.16",
    "platformdirs": "platformdirs>=4",
    "pydantic": "pydantic>=2.9",
    "threadpoolctl": "threadpoolctl>=3.5",
    "yaml": "pyyaml>=6",
}
"""To measure lesions and to talk to a server, by import name."""
MODEL_PACKAGES = {
    "safetensors": "safetensors>=0.5",
    "sklearn": "scikit-learn>=1.5",
    "transformers": "transformers>=5.20",
}
"""To run the language model in Slicer itself, beside PyTorch."""
REPORT_PACKAGES = {"fpdf": "fpdf2>=2.8", "jinja2": "jinja2>=3.1", "PIL": "pillow>=11"}
"""To export reports."""
DICOM_PACKAGES = {"highdicom": "highdicom>=0.27,<0.28"}
"""To add results to the DICOM database; it brings pydicom where Slicer does not."""


def isMissing(package: str) -> bool:
    """Whether a package is not installed; it is not imported."""
    try:
        return find_spec(package) is None
    except ValueError:  # in sys.modules without a specification
        return True


def missingPackages(packages: Mapping[str, str]) -> str:
    """One sentence on what of these, of the backend itself and of PyRadiomics is missing; empty where nothing is."""
    if isMissing("radllm_backend"):
        return _("The package radllm_backend is missing: install the extension RadiomicsLLM again.")
    if isMissing("radiomics"):
        return _("PyRadiomics is missing: install the extension SlicerRadiomics and restart Slicer.")
    missing = [requirement for package, requirement in packages.items() if isMissing(package)]
    if missing:
        return _("Packages are missing: install {packages} under “Set up”.").format(packages=", ".join(missing))
    return ""
