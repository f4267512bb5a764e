"""Packs of prompts (`packs`) read by PyTorch on a CPU: how an adapter is trained there."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import torch
from torch import Tensor, nn
from torch.nn import functional

from radllm_backend.language.linear import quicken
from radllm_backend.language.packs import BLOCK, BlockRows, Pack

if TYPE_CHECKING:
    from transformers import LlamaModel

_NAME = "radllm_packs"


def read(pack: Pack, backbone: nn.Module) -> list[Tensor]:
    """The last layer's hidden states of each prompt of a pack, [tokens × hidden size].

    Args:
        backbone: a model of transformers that `prepare` has seen.
    """
    filled = pack.filled()
    states = backbone(
        input_ids=torch.tensor([filled.tokens]),
        position_ids=torch.tensor([filled.positions]),
        attention_blocks=[Blocks.of(start, rows) for start, rows in pack.blocks().items()],
        use_cache=False,
    ).last_hidden_state[0]
    return [states[rows] for rows in pack.prompts]


@dataclass(frozen=True)
class Blocks:
    """The blocks of a pack that start at the same place of their prompts."""

    queries: Tensor
    """Where in the pack their tokens are, [blocks × BLOCK]; -1 where another prompt has them, and beyond the end."""
    keys: Tensor
    """The same of all tokens up to their end, [blocks × (start + BLOCK)]; anything beyond the end of a prompt."""
    visible: Tensor
    """Which of the keys each query sees, [BLOCK × (start + BLOCK)]."""

    @classmethod
    def of(cls, start: int, rows: Sequence[BlockRows]) -> Blocks:
        """Those that start at this position."""
        queries, keys = (torch.tensor(part) for part in zip(*rows, strict=True))
        return cls(queries, keys.clamp(min=0), torch.ones(BLOCK, start + BLOCK, dtype=torch.bool).tril(start))


def attend(query: Tensor, key: Tensor, value: Tensor, blocks: Sequence[Blocks] | None, scaling: float) -> Tensor:
    """Causal attention, block by block where a pack is read.

    Args:
        query: [prompts × heads × tokens × width]; `key` and `value` may have fewer heads. A pack counts as one prompt.

    Returns:
        [prompts × tokens × heads × width].
    """
    if blocks is None:
        whole = functional.scaled_dot_product_attention(
            query, key, value, is_causal=True, scale=scaling, enable_gqa=True
        )
        return whole.transpose(1, 2)
    query, key, value = (part[0].transpose(0, 1) for part in (query, key, value))
    attended = torch.zeros(len(query) + 1, *query.shape[1:], dtype=query.dtype)  # the last row takes what nobody asked
    for one in blocks:
        found = functional.scaled_dot_product_attention(
            _picked(query, one.queries),
            _picked(key, one.keys),
            _picked(value, one.keys),
            attn_mask=one.visible,
            scale=scaling,
            enable_gqa=True,
        )
        # Under autocast the products come in bf16.
        attended.index_copy_(
            0, one.queries.flatten() % len(attended), found.transpose(1, 2).flatten(0, 1).to(query.dtype)
        )
    return attended[None, :-1]


def _picked(heads: Tensor, rows: Tensor) -> Tensor:
    """Of [tokens × heads × width] those tokens of each block, [blocks × heads × tokens × width]."""
    # Not by an index in brackets, whose gradient takes several times as long.
    picked: Tensor = heads.index_select(0, rows.flatten() % len(heads)).unflatten(0, rows.shape)
    return picked.transpose(1, 2)


def prepare(backbone: LlamaModel) -> LlamaModel:
    """A transformers model, made able to read packs, and to read faster; it trains as it did."""
    from transformers import AttentionInterface

    AttentionInterface.register(_NAME, _attend)
    backbone.set_attn_implementation(_NAME)
    quicken(backbone)
    return backbone


def _attend(
    module: nn.Module,
    query: Tensor,
    key: Tensor,
    value: Tensor,
    attention_mask: Tensor | None,
    *,
    scaling: float,
    attention_blocks: Sequence[Blocks] | None = None,
    **more: Any,
) -> tuple[Tensor, None]:
    """As transformers calls it."""
    if attention_blocks is None:
        from transformers.integrations.sdpa_attention import sdpa_attention_forward

        return sdpa_attention_forward(module, query, key, value, attention_mask, scaling=scaling, **more)
    return attend(query, key, value, attention_blocks, scaling), None
