"""The LLaMA transformer for reading on its own: without transformers, whose import takes longer than the first score.

It computes what transformers computes, operation by operation and to the last bit, for plain models only: linear layers
without bias, SiLU, rotary positions without scaling. SmolLM2 is one; for any other `load` says None. To train, and in 4
bits, models are loaded by transformers.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor, nn
from torch.nn import functional

from radllm_backend.files import read_json
from radllm_backend.language.base_models import BaseModelFolder, tensors_of
from radllm_backend.language.linear import OneDnnLinear
from radllm_backend.language.packs import Blocks, attend

_PREFIX = "model."


@dataclass(frozen=True)
class Shape:
    """What of ``config.json`` matters."""

    vocab_size: int
    hidden_size: int
    intermediate_size: int
    num_hidden_layers: int
    num_attention_heads: int
    num_key_value_heads: int
    head_dim: int
    max_position_embeddings: int
    rms_norm_eps: float
    rope_theta: float

    @classmethod
    def of(cls, config: Mapping[str, Any]) -> Shape | None:
        """None where it is not a plain model, or something is missing."""
        rope = {"rope_theta": config.get("rope_theta"), **(config.get("rope_parameters") or {})}
        is_plain = (
            rope.keys() <= {"rope_theta", "rope_type"}
            and rope.get("rope_type", "default") == "default"
            and not config.get("rope_scaling")
            and config.get("hidden_act") == "silu"
            and not config.get("attention_bias")
            and not config.get("mlp_bias")
            and config.get("partial_rotary_factor") is None
        )
        try:
            heads, width = config["num_attention_heads"], config["hidden_size"]
            found = {name: config[name] for name in cls.__annotations__ if name in config}
            head_dim = config.get("head_dim") or width // heads
            return cls(**{**found, "head_dim": head_dim, "rope_theta": float(rope["rope_theta"])}) if is_plain else None
        except (KeyError, TypeError):
            return None


@dataclass(frozen=True)
class Reading:
    """As transformers returns it."""

    last_hidden_state: Tensor
    """[prompts × tokens × hidden size]"""


class Llama(nn.Module):
    """The transformer without a language-model head; its tensors have the names that they have in transformers."""

    def __init__(self, shape: Shape) -> None:
        super().__init__()
        self.config = shape
        # Not drawn at random before the weights come: that alone would import half of torch's compiler.
        self.embed_tokens = nn.Embedding.from_pretrained(torch.empty(shape.vocab_size, shape.hidden_size))
        self.layers = nn.ModuleList(_Layer(shape) for _ in range(shape.num_hidden_layers))
        self.norm = _Norm(shape)

    def forward(
        self,
        input_ids: Tensor,
        position_ids: Tensor | None = None,
        attention_blocks: Sequence[Blocks] | None = None,
        use_cache: bool = False,
    ) -> Reading:
        """Hidden states of tokenised prompts [prompts × tokens], or of one pack (`packs`)."""
        if position_ids is None:
            position_ids = torch.arange(input_ids.shape[1], device=input_ids.device)[None]
        states = self.embed_tokens(input_ids)
        turns = self._turns(position_ids)
        for layer in self.layers:
            states = layer(states, turns, attention_blocks)
        return Reading(self.norm(states))

    def _turns(self, positions: Tensor) -> tuple[Tensor, Tensor]:
        """Cosine and sine of each position's rotations, [prompts × 1 × tokens × head width]."""
        width = self.config.head_dim
        pairs = torch.arange(0, width, 2, dtype=torch.float, device=positions.device) / width
        angles = positions[..., None].float() * (1.0 / self.config.rope_theta**pairs)
        both = torch.cat([angles, angles], dim=-1)[:, None]
        return both.cos(), both.sin()


class _Layer(nn.Module):
    def __init__(self, shape: Shape) -> None:
        super().__init__()
        self.self_attn = _Attention(shape)
        self.mlp = _FeedForward(shape)
        self.input_layernorm = _Norm(shape)
        self.post_attention_layernorm = _Norm(shape)

    def forward(self, states: Tensor, turns: tuple[Tensor, Tensor], blocks: Sequence[Blocks] | None) -> Tensor:
        states = states + self.self_attn(self.input_layernorm(states), turns, blocks)
        passed: Tensor = self.mlp(self.post_attention_layernorm(states))
        return states + passed


class _Attention(nn.Module):
    def __init__(self, shape: Shape) -> None:
        super().__init__()
        self.head_dim = shape.head_dim
        queries, keys = (heads * shape.head_dim for heads in (shape.num_attention_heads, shape.num_key_value_heads))
        self.q_proj, self.o_proj = _linear(shape.hidden_size, queries), _linear(queries, shape.hidden_size)
        self.k_proj, self.v_proj = _linear(shape.hidden_size, keys), _linear(shape.hidden_size, keys)

    def forward(self, states: Tensor, turns: tuple[Tensor, Tensor], blocks: Sequence[Blocks] | None) -> Tensor:
        query, key, value = (
            layer(states).unflatten(-1, (-1, self.head_dim)).transpose(1, 2)
            for layer in (self.q_proj, self.k_proj, self.v_proj)
        )
        attended = attend(_turned(query, turns), _turned(key, turns), value, blocks, self.head_dim**-0.5)
        result: Tensor = self.o_proj(attended.flatten(2))
        return result


class _FeedForward(nn.Module):
    def __init__(self, shape: Shape) -> None:
        super().__init__()
        self.gate_proj = _linear(shape.hidden_size, shape.intermediate_size)
        self.up_proj = _linear(shape.hidden_size, shape.intermediate_size)
        self.down_proj = _linear(shape.intermediate_size, shape.hidden_size)

    def forward(self, states: Tensor) -> Tensor:
        gate = functional.silu(self.gate_proj(states), inplace=True)  # the largest tensors: no copies of them
        result: Tensor = self.down_proj(gate.mul_(self.up_proj(states)))
        return result


class _Norm(nn.Module):
    """Root mean square normalisation (Zhang and Sennrich, NeurIPS 2019)."""

    def __init__(self, shape: Shape) -> None:
        super().__init__()
        self.weight = nn.Parameter(torch.ones(shape.hidden_size))
        self.smallest = shape.rms_norm_eps

    def forward(self, states: Tensor) -> Tensor:
        return self.weight * (states * torch.rsqrt(states.pow(2).mean(-1, keepdim=True) + self.smallest))


def _linear(in_features: int, out_features: int) -> nn.Linear:
    return OneDnnLinear(in_features, out_features, bias=False)


def _turned(heads: Tensor, turns: tuple[Tensor, Tensor]) -> Tensor:
    """Rotary positions (Su et al., Neurocomputing 568 (2024) 127063): halves of a head are the pairs that turn."""
    cosine, sine = turns
    first, second = heads.chunk(2, dim=-1)
    return heads * cosine + torch.cat([-second, first], dim=-1) * sine


def load(base: BaseModelFolder) -> Llama | None:
    """The model in fp32 on the CPU, its weights mapped into memory where the file has them in fp32.

    None where transformers has to load it, or has to say what is wrong with it.
    """
    shape = None if base.four_bit else Shape.of(read_json(base.folder / "config.json"))
    if shape is None:
        return None
    try:
        tensors = {name.removeprefix(_PREFIX): tensor.float() for name, tensor in tensors_of(base.folder).items()}
        tensors.pop("lm_head.weight", None)
        with torch.device("meta"):
            model = Llama(shape)
        model.load_state_dict(tensors, assign=True)
    except Exception:  # safetensors and torch raise their own kinds
        return None
    return model.requires_grad_(False).eval()
