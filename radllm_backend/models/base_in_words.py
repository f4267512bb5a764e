"""A base model as people are told of it: its name, how many of its layers are read, how its weights are kept."""

from __future__ import annotations

from radllm_backend.language.base_models import catalogue


def base_in_words(name: str, read: str = "") -> str:
    """``smollm2-135m-instruct (its first 10 layers; 4-bit (Q4_1) weights, expanded to fp32)``.

    The precision is known of a base model of the catalogue only.

    Args:
        name: as cards and predictions name it.
        read: what of it is read (`layers_in_words`), where that is known.
    """
    entry = catalogue().get(name)
    more = "; ".join(filter(None, [read, entry.precision if entry else ""]))
    return f"{name} ({more})" if more else name


def layers_in_words(layers: int | None) -> str:
    """What a model reads of its base model, by the number in its card."""
    if layers is None:
        return "all its layers"
    return "its first layer" if layers == 1 else f"its first {layers} layers"
