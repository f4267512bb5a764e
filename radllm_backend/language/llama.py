"""The LLaMA transformer in numpy, for reading on a CPU: what transformers computes in fp32, layer by layer.

It gives a prompt the same bits in whatever company it is read: see `packs` and `blas.row_period`.
"""

from __future__ import annotations

from collections.abc import Collection, Iterator, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np

from radllm_backend.errors import RadllmError, counted
from radllm_backend.features.arrays import Float32Array, IntArray
from radllm_backend.files import read_json
from radllm_backend.language.adapters import Adapter
from radllm_backend.language.base_models import BaseModelFolder
from radllm_backend.language.packs import BLOCK, BlockRows, Pack
from radllm_backend.language.shape import LlamaShape
from radllm_backend.language.weights import MappedWeights


@dataclass(frozen=True)
class _Linear:
    weight: Float32Array
    """[out × in]"""
    bias: Float32Array | None

    def __call__(self, rows: Float32Array) -> Float32Array:
        found: Float32Array = rows @ self.weight.T
        if self.bias is not None:
            found += self.bias
        return found


@dataclass(frozen=True)
class _Layer:
    """One of the transformer's blocks, with the names of transformers."""

    input_layernorm: Float32Array
    q_proj: _Linear
    k_proj: _Linear
    v_proj: _Linear
    o_proj: _Linear
    post_attention_layernorm: Float32Array
    gate_proj: _Linear
    up_proj: _Linear
    down_proj: _Linear


class Llama:
    """The first layers of a LLaMA model without a language-model head."""

    def __init__(
        self, shape: LlamaShape, weights: MappedWeights, layers: int | None = None, adapter: Adapter | None = None
    ) -> None:
        """
        Args:
            layers: how many are read at most; None for all.
            adapter: added into the weights.

        Raises:
            RadllmError: weights and shape do not fit, the adapter is for another model, or there are not so many
                layers.
        """
        if layers is not None and not 1 <= layers <= shape.layers:
            raise RadllmError(
                f"The base model has {counted(shape.layers, 'layer')}, and {layers} cannot be read: name fewer."
            )
        self.shape = shape
        self._embedding = weights.shaped("embed_tokens.weight", shape.vocabulary, shape.width)
        self._norm = weights.shaped("norm.weight", shape.width)
        if adapter:
            adapter.check(shape.linear_layers(), shape.width)
        self._layers = [_layer(shape, weights, number, adapter) for number in range(layers or shape.layers)]

    def states(self, pack: Pack, layers: Collection[int]) -> Iterator[tuple[int, Float32Array]]:
        """The hidden states of a pack, [tokens × width], after each of some numbers of layers, in rising order.

        Each is normalised as after the last layer: a model of transformers that is cut off there gives the same.
        """
        states = self._embedding[np.array(pack.tokens)]
        turns = self._turns(pack.positions)
        blocks = [_Blocks.of(start, rows) for start, rows in pack.blocks().items()]
        for number, layer in enumerate(self._layers[: max(layers)], 1):
            states += self._attended(layer, self._normed(states, layer.input_layernorm), turns, blocks)
            states += _fed_forward(layer, self._normed(states, layer.post_attention_layernorm))
            if number in layers:
                yield number, self._normed(states, self._norm)

    def _normed(self, states: Float32Array, gain: Float32Array) -> Float32Array:
        """Root mean square normalisation (Zhang and Sennrich, NeurIPS 2019)."""
        mean = np.square(states).mean(axis=-1, keepdims=True)
        normed: Float32Array = states * (1 / np.sqrt(mean + np.float32(self.shape.epsilon)))
        normed *= gain
        return normed

    def _turns(self, positions: Sequence[int]) -> tuple[Float32Array, Float32Array]:
        """Cosine and sine of each position's rotations, [tokens × 1 × head width]."""
        angles = self.shape.angles(np.array(positions, dtype=np.float32))
        both = np.concatenate([angles, angles], axis=-1)[:, None]
        return np.cos(both), np.sin(both)

    def _attended(
        self, layer: _Layer, rows: Float32Array, turns: tuple[Float32Array, Float32Array], blocks: Sequence[_Blocks]
    ) -> Float32Array:
        query, key, value = (
            linear(rows).reshape(len(rows), -1, self.shape.head_width)
            for linear in (layer.q_proj, layer.k_proj, layer.v_proj)
        )
        query, key = _turned(query, turns), _turned(key, turns)
        query *= np.float32(self.shape.head_width**-0.5)
        # The last row takes what nobody asked for.
        attended = np.zeros((len(rows) + 1, self.shape.heads * self.shape.head_width), dtype=np.float32)
        for one in blocks:
            attended[one.queries] = one.attend(query, key, value)
        return layer.o_proj(attended[:-1])


@dataclass(frozen=True)
class _Blocks:
    """The blocks of a pack that start at the same place of their prompts, so that they have the same shape."""

    queries: IntArray
    """[blocks × BLOCK]; -1 for a token that is not the block's own."""
    keys: IntArray
    """[blocks × (start + BLOCK)]"""
    mask: Float32Array
    """0 where a query sees a key, minus infinity where not, [BLOCK × (start + BLOCK)]."""

    @classmethod
    def of(cls, start: int, rows: Sequence[BlockRows]) -> _Blocks:
        queries, keys = (np.array(part) for part in zip(*rows, strict=True))
        # What is beyond the end of a prompt is seen by nobody.
        visible = np.tri(BLOCK, start + BLOCK, start, dtype=bool)
        return cls(queries, np.maximum(keys, 0), np.where(visible, 0, -np.inf).astype(np.float32))

    def attend(self, query: Float32Array, key: Float32Array, value: Float32Array) -> Float32Array:
        """Causal attention, [blocks × BLOCK × (heads · width)].

        Args:
            query: [tokens × heads × width], scaled; `key` and `value` may have fewer heads.
        """
        key_heads, width = key.shape[1:]
        blocks = len(self.queries)
        # [blocks × key heads × (heads of each · BLOCK) × width]
        asked = query[self.queries].reshape(blocks, BLOCK, key_heads, -1, width).transpose(0, 2, 3, 1, 4)
        weights = asked.reshape(blocks, key_heads, -1, width) @ key[self.keys].transpose(0, 2, 3, 1)
        by_query = weights.reshape(blocks, key_heads, -1, *self.mask.shape)
        by_query += self.mask
        weights -= weights.max(axis=-1, keepdims=True)
        np.exp(weights, out=weights)
        weights /= weights.sum(axis=-1, keepdims=True)
        found: Any = weights @ value[self.keys].transpose(0, 2, 1, 3)
        attended: Float32Array = found.reshape(blocks, key_heads, -1, BLOCK, width).transpose(0, 3, 1, 2, 4)
        return attended.reshape(blocks, BLOCK, -1)


def _fed_forward(layer: _Layer, rows: Float32Array) -> Float32Array:
    gate = layer.gate_proj(rows)
    with np.errstate(over="ignore"):  # far below zero the exponential is infinite, and the quotient zero, as it should
        squashed = np.exp(-gate)
    squashed += 1
    gate /= squashed
    gate *= layer.up_proj(rows)
    return layer.down_proj(gate)


def _turned(heads: Float32Array, turns: tuple[Float32Array, Float32Array]) -> Float32Array:
    """Rotary positions: halves of a head are the pairs that turn."""
    cosine, sine = turns
    first, second = np.split(heads, 2, axis=-1)
    turned: Float32Array = heads * cosine
    turned += np.concatenate([-second, first], axis=-1) * sine
    return turned


def merged_weights(base: BaseModelFolder, adapter: Adapter) -> dict[str, Float32Array]:
    """Every tensor of a base model with an adapter added in, by the names of transformers' ``LlamaForCausalLM``.

    Raises:
        RadllmError: the base model is damaged, or the adapter is for another one.
    """
    weights = MappedWeights(base.folder)
    shape = LlamaShape.of(read_json(base.folder / "config.json"), base.folder.name)
    adapter.check(shape.linear_layers(), shape.width)
    merged = {f"model.{name}": weights[name] for name in weights if name != "lm_head.weight"}
    for name in shape.linear_layers():
        merged[f"model.{name}.weight"] = adapter.added_to(name, weights[f"{name}.weight"])
    return merged


def _layer(shape: LlamaShape, weights: MappedWeights, number: int, adapter: Adapter | None) -> _Layer:
    linear = {}
    for name, (outputs, inputs) in shape.linear_layers(number).items():
        weight = weights.shaped(f"{name}.weight", outputs, inputs)
        bias = weights.shaped(f"{name}.bias", outputs) if shape.has_bias(name) else None
        linear[name.rpartition(".")[2]] = _Linear(adapter.added_to(name, weight) if adapter else weight, bias)
    norms = {
        name: weights.shaped(f"layers.{number}.{name}.weight", shape.width)
        for name in ("input_layernorm", "post_attention_layernorm")
    }
    found: Any = {**linear, **norms}
    return _Layer(**found)
