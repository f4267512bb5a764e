"""What is measured, and how: a PyRadiomics parameter file with one section more, ``radllm``, unseen by PyRadiomics.

That section has the modality and dimension the preset is meant for, and how intensities are prepared.
"""

from __future__ import annotations

import hashlib
import json
from dataclasses import dataclass
from typing import Any

from radllm_backend.errors import RadllmError
from radllm_backend.records import MODALITIES

_INTENSITIES = ("as-stored", "min-max")


@dataclass(frozen=True)
class Settings:
    """What PyRadiomics is to compute, and how the intensities are prepared for it."""

    name: str
    """The preset's name, or ``custom``."""
    parameters: dict[str, Any]
    """PyRadiomics' own: ``imageType``, ``featureClass``, ``setting``."""
    modality: str | None = None
    dimension: int | None = None
    """2 or 3; None where the settings serve both."""
    intensity: str = "as-stored"
    """``min-max``: the whole image scaled to 0..1 first; ``as-stored``: left alone."""

    @property
    def sha256(self) -> str:
        """Hash of everything that changes a value (not of the name)."""
        canonical = json.dumps([self.intensity, self.parameters], sort_keys=True, separators=(",", ":"))
        return hashlib.sha256(canonical.encode()).hexdigest()

    def to_dict(self) -> dict[str, Any]:
        """Plain data for a model bundle; `Settings.from_dict` reads it back."""
        own = {"modality": self.modality, "dimension": self.dimension, "intensity": self.intensity}
        return {"radllm": own, **self.parameters}

    @classmethod
    def from_dict(cls, data: dict[str, Any], name: str = "custom") -> Settings:
        """Settings from the content of a parameter file; RadllmError where a part of it is unknown.

        What PyRadiomics itself refuses, it refuses when it is to measure: a server only reads, and need not import it.
        """
        unknown = set(data) - {"radllm", "imageType", "featureClass", "setting"}
        if unknown:
            raise RadllmError(
                f"The settings '{name}' have an unknown section '{min(map(str, unknown))}': "
                "a PyRadiomics file has imageType, featureClass and setting."
            )
        own = data.get("radllm") or {}
        settings = cls(
            name=name,
            parameters={key: value for key, value in data.items() if key != "radllm"},
            **{key: own[key] for key in ("modality", "dimension", "intensity") if key in own},
        )
        settings._check()
        return settings

    def _check(self) -> None:
        if self.modality not in (None, *MODALITIES):
            raise RadllmError(f"The settings '{self.name}' name the modality '{self.modality}': use MG, US, CT or MR.")
        if self.dimension not in (None, 2, 3):
            raise RadllmError(f"The settings '{self.name}' name the dimension '{self.dimension}': use 2 or 3.")
        if self.intensity not in _INTENSITIES:
            raise RadllmError(
                f"The settings '{self.name}' name the intensity '{self.intensity}': use {' or '.join(_INTENSITIES)}."
            )

    def canonical_parameters(self) -> str:
        """PyRadiomics\' own, as text that is the same for the same settings."""
        return json.dumps(self.parameters, sort_keys=True)
