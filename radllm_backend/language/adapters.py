"""A trained LoRA adapter with its head, as a bundle keeps it: what its tensors are called and how it is added in."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any, Protocol

import numpy as np
from numpy.typing import NDArray

from radllm_backend.errors import RadllmError
from radllm_backend.features.arrays import Float32Array

LINEAR_LAYERS = ("q_proj", "k_proj", "v_proj", "o_proj", "gate_proj", "up_proj", "down_proj")
"""Every linear layer of a LLaMA block."""
HEAD = "head."
"""What the names of the head's two tensors begin with: its weight [1 × hidden size] and its bias [1]."""


@dataclass(frozen=True)
class AdapterShape:
    """Size of a LoRA adapter (Hu et al. 2022): weights change by alpha / rank · B · A."""

    rank: int = 16
    alpha: int = 32


class _Shaped(Protocol):
    @property
    def shape(self) -> tuple[int, ...]: ...


@dataclass(frozen=True)
class Adapter:
    """An adapter for all linear layers of a base model, and a linear head on the last token's hidden state."""

    weights: Mapping[str, NDArray[Any]]
    """By the names that peft gives them; see `lora_name`."""
    shape: AdapterShape

    def check(self, layers: Mapping[str, tuple[int, int]], width: int) -> None:
        """RadllmError where a tensor is missing, unknown or of another shape than the base model's layers ask for.

        Args:
            layers: (out, in) of each linear layer by name.
            width: of a hidden state.
        """
        expected: dict[str, tuple[int, ...]] = {f"{HEAD}weight": (1, width), f"{HEAD}bias": (1,)}
        for name, (outputs, inputs) in layers.items():
            expected[lora_name(name, "A")] = (self.shape.rank, inputs)
            expected[lora_name(name, "B")] = (outputs, self.shape.rank)
        refuse_misfit(expected, self.weights)

    def added_to(self, name: str, weight: Float32Array) -> Float32Array:
        """A linear layer's weight [out × in] with what the adapter changes."""
        lora_A, lora_B = (np.asarray(self.weights[lora_name(name, part)], dtype=np.float32) for part in "AB")
        changed: Float32Array = weight + lora_B @ lora_A * np.float32(self.shape.alpha / self.shape.rank)
        return changed

    @property
    def head(self) -> tuple[Float32Array, float]:
        """The head's weight [hidden size] and its bias."""
        weight, bias = (np.asarray(self.weights[HEAD + name], dtype=np.float32) for name in ("weight", "bias"))
        return weight[0], float(bias[0])


def lora_name(layer: str, part: str) -> str:
    """The name that peft gives one of the two matrices of a layer's adapter."""
    return f"base_model.model.{layer}.lora_{part}.weight"


def refuse_misfit(expected: Mapping[str, tuple[int, ...]], weights: Mapping[str, _Shaped]) -> None:
    """RadllmError where tensors are not those that are expected, by name and shape; it names the first."""
    given = {name: tuple(tensor.shape) for name, tensor in weights.items()}
    if expected != given:
        wrong = sorted(name for name in expected.keys() | given.keys() if expected.get(name) != given.get(name))
        raise RadllmError(
            f"The adapter does not fit its base model (tensor '{wrong[0]}'): use the base model it was trained on."
        )
