"""What a model reads, as far as the panel has to know before the model is loaded."""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from .Backend import Backend


@dataclass(frozen=True)
class ModelInputs:
    """By what its card says."""

    readsImage: bool = True
    """Whether lesions are measured for it; False where it reads the radiologist's descriptors alone."""
    descriptors: Mapping[str, Sequence[str]] = field(default_factory=dict)
    """The descriptors that it reads, in their order, each with the values that a lesion can have."""


def modelInputs(backend: Backend, nameOrFolder: str) -> ModelInputs:
    """What a model of a backend reads; features of an image alone where its card cannot be read now.

    Only the radiologist's closed vocabularies can come of a card: it is not verified here, as it is when it is loaded.
    """
    card = _card(backend, nameOrFolder) if nameOrFolder else {}
    try:
        counts = {row["descriptor"]: row["counts"] for row in card.get("descriptors", [])}
        return ModelInputs(
            readsImage=card.get("settings_name") is not None or not counts,
            descriptors={name: values for name, known in counts.items() if (values := _values(name, known))},
        )
    except (AttributeError, KeyError, TypeError):
        return ModelInputs()


def _card(backend: Backend, nameOrFolder: str) -> dict[str, Any]:
    """Read without any package that Slicer lacks at first."""
    try:
        from radllm_backend import RadllmError
        from radllm_backend.models.shipped import CARD, SHIPPED, shipped_models
    except ImportError:  # the backend says so itself
        return {}
    try:
        if backend.leavesComputer:
            return backend.card(nameOrFolder)
        folder = SHIPPED / nameOrFolder if nameOrFolder in shipped_models() else Path(nameOrFolder)
        card = json.loads((folder / CARD).read_text(encoding="utf-8"))
        return card if isinstance(card, dict) else {}
    except (OSError, ValueError, RadllmError):
        return {}


def _values(descriptor: str, known: Mapping[str, int]) -> list[str]:
    """Every single term, and below them what readers of the training lesions combined; none of an unknown one."""
    from radllm_backend import RadllmError
    from radllm_backend.features.descriptors import VOCABULARIES, canonical

    if descriptor not in VOCABULARIES:
        return []
    values = list(VOCABULARIES[descriptor].terms)
    for value in known:
        try:
            text = canonical(descriptor, value)
        except RadllmError:
            continue
        if text and text not in values:
            values.append(text)
    return values
