"""What of a LLaMA model's ``config.json`` matters to reading: its sizes, and how it turns positions into angles."""

from __future__ import annotations

import math
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

import numpy as np

from radllm_backend.errors import RadllmError
from radllm_backend.features.arrays import Float32Array

_PLAIN = {"rope_theta", "rope_type", "type"}
_ROPE_TYPES = ("default", "linear", "llama3")


@dataclass(frozen=True)
class LlamaShape:
    """The sizes of a LLaMA model."""

    vocabulary: int
    width: int
    """Of a token's hidden state."""
    feed_forward: int
    layers: int
    heads: int
    key_heads: int
    """Each serves heads / key_heads heads of the queries."""
    head_width: int
    most_tokens: int
    epsilon: float
    """Of the normalisation."""
    frequencies: tuple[float, ...]
    """Angle per position of each pair of a head, [head_width / 2]."""
    attention_bias: bool
    """Whether the four linear layers of attention add a bias; a file may hold one that is not to be added."""
    feed_forward_bias: bool

    @classmethod
    def of(cls, config: Mapping[str, Any], where: str) -> LlamaShape:
        """From a ``config.json``, with the usual values of transformers' ``LlamaConfig`` where it is silent.

        Args:
            where: the folder, for sentences.

        Raises:
            RadllmError: something is missing or malformed, or the model is of a kind that is not read here.
        """
        try:
            return cls._of(config, where)
        except (KeyError, TypeError, ValueError, ZeroDivisionError, OverflowError) as error:
            raise RadllmError(f"config.json in {where} is malformed ({error}): fetch the model again.") from error

    @classmethod
    def _of(cls, config: Mapping[str, Any], where: str) -> LlamaShape:
        if config.get("hidden_act", "silu") != "silu" or config.get("partial_rotary_factor") not in (None, 1, 1.0):
            raise RadllmError(
                f"The model in {where} is no plain LLaMA model (hidden_act {config.get('hidden_act')!r}, "
                f"partial_rotary_factor {config.get('partial_rotary_factor')!r}): use one that is."
            )
        heads, width = _count(config, "num_attention_heads"), _count(config, "hidden_size")
        head_width = int(config.get("head_dim") or width // heads)
        key_heads = int(config.get("num_key_value_heads") or heads)
        if heads % key_heads or head_width % 2 or head_width < 2:
            raise ValueError("its heads do not fit each other")
        return cls(
            vocabulary=_count(config, "vocab_size"),
            width=width,
            feed_forward=_count(config, "intermediate_size"),
            layers=_count(config, "num_hidden_layers"),
            heads=heads,
            key_heads=key_heads,
            head_width=head_width,
            most_tokens=int(config.get("max_position_embeddings") or 2048),
            epsilon=float(config.get("rms_norm_eps", 1e-6)),
            frequencies=_frequencies(config, head_width, where),
            attention_bias=bool(config.get("attention_bias")),
            feed_forward_bias=bool(config.get("mlp_bias")),
        )

    def linear_layers(self, number: int | None = None) -> dict[str, tuple[int, int]]:
        """The size (out, in) of each linear layer by name, of one block or of all."""
        queries, keys = self.heads * self.head_width, self.key_heads * self.head_width
        inner = self.feed_forward
        sizes = {
            "self_attn.q_proj": (queries, self.width),
            "self_attn.k_proj": (keys, self.width),
            "self_attn.v_proj": (keys, self.width),
            "self_attn.o_proj": (self.width, queries),
            "mlp.gate_proj": (inner, self.width),
            "mlp.up_proj": (inner, self.width),
            "mlp.down_proj": (self.width, inner),
        }
        blocks = range(self.layers) if number is None else [number]
        return {f"layers.{block}.{name}": size for block in blocks for name, size in sizes.items()}

    def has_bias(self, layer: str) -> bool:
        """Whether one of the `linear_layers` adds a bias."""
        return self.attention_bias if ".self_attn." in layer else self.feed_forward_bias

    def angles(self, positions: Float32Array) -> Float32Array:
        """Of each position [tokens] the angle of each pair, [tokens × head_width / 2]."""
        return positions[:, None] * np.array(self.frequencies, dtype=np.float32)


def _count(config: Mapping[str, Any], name: str) -> int:
    found = int(config[name])
    if found < 1:
        raise ValueError(f"{name} is {found}")
    return found


def _frequencies(config: Mapping[str, Any], head_width: int, where: str) -> tuple[float, ...]:
    """Rotary positions (Su et al., Neurocomputing 568 (2024) 127063), scaled where the config says so."""
    rope = {"rope_theta": config.get("rope_theta"), **(config.get("rope_scaling") or {})}
    rope.update({name: value for name, value in (config.get("rope_parameters") or {}).items() if value is not None})
    kind = rope.get("rope_type") or rope.get("type") or "default"
    theta = float(rope["rope_theta"] or 10000.0)
    plain = 1.0 / np.float32(theta) ** (np.arange(0, head_width, 2, dtype=np.float32) / np.float32(head_width))
    if kind not in _ROPE_TYPES or (kind == "default" and not rope.keys() <= _PLAIN):
        raise RadllmError(
            f"The model in {where} turns positions in a way that is not read here (rope_type {str(kind)[:20]!r}): use "
            f"one of {', '.join(_ROPE_TYPES)}."
        )
    if kind == "linear":
        plain = plain / np.float32(rope["factor"])
    if kind == "llama3":
        plain = _llama3(plain, rope)
    return tuple(plain.tolist())


def _llama3(plain: Float32Array, rope: Mapping[str, Any]) -> Float32Array:
    """Llama 3.1's scaling (Grattafiori et al., arXiv 2407.21783): slow pairs are slowed down, fast ones stay."""
    factor, old = float(rope["factor"]), float(rope["original_max_position_embeddings"])
    low, high = float(rope["low_freq_factor"]), float(rope["high_freq_factor"])
    lengths = 2 * math.pi / plain
    share = np.clip((old / lengths - low) / (high - low), 0, 1)  # 0: slowed down, 1: as it was
    scaled: Float32Array = ((1 - share) * plain / factor + share * plain).astype(np.float32)
    return scaled
