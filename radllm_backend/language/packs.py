"""Prompts read together on a CPU: what several begin with is read once, and each is read as if it were alone.

A pack is the tokens of several prompts in one row, those of shared beginnings once. The linear layers, nearly all of
the work, read that row as one matrix. Attention goes in blocks of 32 tokens, each with the tokens before it in its own
prompt. A block's shape depends on its place in the prompt alone, and a matrix product gives each row the same bits
whatever rows are beside it, so that a prompt's hidden states are the same to the last bit in whatever company.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field
from itertools import takewhile
from typing import TYPE_CHECKING, Any

import torch
from torch import Tensor, nn
from torch.nn import functional

from radllm_backend.language.linear import quicken

if TYPE_CHECKING:
    from transformers import LlamaModel

BLOCK = 32
"""Tokens whose attention is computed together."""
_MOST = 2048
"""Tokens of a pack. Each pack reads its beginnings anew, and takes some 50 MB for a model of 135 million weights."""
_FEWEST = 16
"""Of one to three rows a matrix product is computed in another way, with other last bits."""
_SIZES = 8
"""That packs have from one power of two to the next: for each, oneDNN keeps programs in memory, half a MB apiece."""
_WEIGHTS, _ATTENTION = 20, 5
"""Fetching all weights, once a pack, and the attention of a block take as long as so many tokens."""
_NAME = "radllm_packs"


@dataclass(frozen=True)
class Pack:
    """Prompts that are read in one pass."""

    tokens: list[int] = field(default_factory=list)
    """Of all prompts, each shared beginning once."""
    positions: list[int] = field(default_factory=list)
    """Of each token in its prompt."""
    prompts: list[list[int]] = field(default_factory=list)
    """Where in the pack each prompt's tokens are."""
    shared: list[int] = field(default_factory=list)
    """With how many tokens each prompt begins that the one before it has too."""

    def add(self, prompt: Sequence[int], shared: int) -> None:
        """A prompt that shares so many tokens with the one added before."""
        first = len(self.tokens)
        self.tokens.extend(prompt[shared:])
        self.positions.extend(range(shared, len(prompt)))
        begun = self.prompts[-1][:shared] if shared else []
        self.prompts.append([*begun, *range(first, len(self.tokens))])
        self.shared.append(shared)

    @property
    def effort(self) -> float:
        """What reading it costs, in tokens."""
        pairs = zip(self.shared, self.prompts, strict=True)
        blocks = sum(len(_starts(shared, len(rows))) for shared, rows in pairs)
        return len(self.tokens) + _WEIGHTS + _ATTENTION * blocks

    def read(self, backbone: nn.Module) -> list[Tensor]:
        """The last layer's hidden states of each prompt, [tokens × hidden size].

        Args:
            backbone: `llama.Llama`, or a model of transformers that `prepare` has seen.
        """
        filling = [0] * (_rounded(len(self.tokens)) - len(self.tokens))
        states = backbone(
            input_ids=torch.tensor([self.tokens + filling]),
            position_ids=torch.tensor([self.positions + filling]),
            attention_blocks=self._blocks(),
            use_cache=False,
        ).last_hidden_state[0]
        return [states[rows] for rows in self.prompts]

    def _blocks(self) -> list[Blocks]:
        """Those with a token that no block of the prompt before has."""
        found: dict[int, list[tuple[list[int], int]]] = {}
        for rows, shared in zip(self.prompts, self.shared, strict=True):
            for start in _starts(shared, len(rows)):
                found.setdefault(start, []).append((rows[: start + BLOCK], shared))
        return [Blocks.of(start, prompts) for start, prompts in found.items()]


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
    def of(cls, start: int, prompts: Sequence[tuple[list[int], int]]) -> Blocks:
        """Of prompts up to the block's end, each with how many tokens it begins with that the one before has too."""
        length = start + BLOCK
        rows = torch.tensor([[*prompt, *[-1] * (length - len(prompt))] for prompt, _ in prompts])
        visible = torch.ones(BLOCK, length, dtype=torch.bool).tril(start)
        # Asked for twice, a token would have the same states, but its gradient would be counted twice.
        own = torch.arange(start, length) >= torch.tensor([[shared] for _, shared in prompts])
        return cls(rows[:, start:].where(own, -1), rows.clamp(min=0), visible)


def _rounded(tokens: int) -> int:
    """To the next of few sizes: at most an eighth more, but for the shortest."""
    step = max(_FEWEST, (1 << tokens.bit_length()) // (2 * _SIZES))
    return -(-tokens // step) * step


def _starts(shared: int, length: int) -> range:
    """Where a prompt's blocks start that hold a token beyond the shared ones."""
    return range(shared // BLOCK * BLOCK, length, BLOCK)


def packs(prompts: Sequence[list[int]]) -> Iterator[Pack]:
    """Tokenised prompts in ascending order, in as many packs as it takes; none is cut."""
    pack, before = Pack(), list[int]()
    for prompt in sorted(prompts):
        shared = sum(1 for _ in takewhile(lambda pair: pair[0] == pair[1], zip(before, prompt, strict=False)))
        if pack.tokens and len(pack.tokens) + len(prompt) - shared > _MOST:
            yield pack
            pack, shared = Pack(), 0
        pack.add(prompt, shared)
        before = prompt
    if pack.tokens:
        yield pack


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
