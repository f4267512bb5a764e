"""Which prompts are read together: what several begin with is read once, and each as if it were alone.

A pack is the tokens of several prompts in one row, those of shared beginnings once. The linear layers, nearly all of
the work, read that row as one matrix. Attention goes in blocks of 32 tokens, each with the tokens before it in its own
prompt, so that a block's shape depends on its place in the prompt alone.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field
from itertools import takewhile
from typing import NamedTuple

BLOCK = 32
"""Tokens whose attention is computed together."""
MOST = 2048
"""Tokens of a pack. Each pack reads its beginnings anew, and takes some 50 MB for a model of 135 million weights."""
NOBODY = -1
"""In a block: a token that is another prompt's, or beyond the end."""
_FEWEST = 16
"""Of few rows a matrix product is computed in another way, with other last bits."""
_SIZES = 8
"""That packs have from one power of two to the next: for each, oneDNN keeps programs in memory, half a MB apiece."""
_WEIGHTS, _ATTENTION = 20, 5
"""Fetching all weights, once a pack, and the attention of a block take as long as so many tokens."""
_FILLING = 0


class BlockRows(NamedTuple):
    """Where in a pack the tokens of a block are."""

    queries: list[int]
    """The block's own tokens, `BLOCK` of them; `NOBODY` where another prompt has them, and beyond the end."""
    keys: list[int]
    """All tokens of the prompt up to the block's end; `NOBODY` beyond the end of the prompt."""


@dataclass(frozen=True)
class Pack:
    """Prompts that are read in one pass."""

    period: int = 1
    """A token's row in the pack and its position in its prompt differ by a multiple of this (`blas.row_period`)."""
    tokens: list[int] = field(default_factory=list)
    """Of all prompts, each shared beginning once, and what fills the gaps between them."""
    positions: list[int] = field(default_factory=list)
    """Of each token in its prompt."""
    prompts: list[list[int]] = field(default_factory=list)
    """Where in the pack each prompt's tokens are."""
    shared: list[int] = field(default_factory=list)
    """With how many tokens each prompt begins that the one before it has too."""

    def add(self, prompt: Sequence[int], shared: int) -> None:
        """A prompt that shares so many tokens with the one added before."""
        gap = (shared - len(self.tokens)) % self.period
        self._extend([_FILLING] * gap, 0)
        first = len(self.tokens)
        self._extend(prompt[shared:], shared)
        begun = self.prompts[-1][:shared] if shared else []
        self.prompts.append([*begun, *range(first, len(self.tokens))])
        self.shared.append(shared)

    def filled(self) -> Pack:
        """The same, filled up to one of few sizes: at most an eighth more, but for the shortest."""
        length = len(self.tokens)
        step = max(_FEWEST, (1 << length.bit_length()) // (2 * _SIZES))
        step = -(-step // self.period) * self.period
        filling = [_FILLING] * (-length % step)
        return Pack(self.period, self.tokens + filling, self.positions + filling, self.prompts, self.shared)

    def blocks(self) -> dict[int, list[BlockRows]]:
        """The blocks with a token that no block of the prompt before has, by the position at which they start."""
        found: dict[int, list[BlockRows]] = {}
        for rows, shared in zip(self.prompts, self.shared, strict=True):
            for start in _starts(shared, len(rows)):
                # Asked for twice, a token would have the same states, but its gradient would be counted twice.
                skipped = max(shared - start, 0)
                queries = [NOBODY] * skipped + rows[start + skipped : start + BLOCK]
                keys = rows[: start + BLOCK]
                block = BlockRows(_padded(queries, BLOCK), _padded(keys, start + BLOCK))
                found.setdefault(start, []).append(block)
        return found

    @property
    def effort(self) -> float:
        """What reading it costs, in tokens."""
        pairs = zip(self.shared, self.prompts, strict=True)
        blocks = sum(len(_starts(shared, len(rows))) for shared, rows in pairs)
        return len(self.tokens) + _WEIGHTS + _ATTENTION * blocks

    def _extend(self, tokens: Sequence[int], position: int) -> None:
        self.tokens.extend(tokens)
        self.positions.extend(range(position, position + len(tokens)))


def packs(prompts: Sequence[list[int]], *, period: int = 1, most: int = MOST) -> Iterator[Pack]:
    """Tokenised prompts in ascending order, in as many packs as it takes; none is cut.

    Args:
        period: of the rows that a matrix product treats alike; 0 where there is none: then each prompt is read alone.
        most: tokens of a pack, if it holds more than one prompt.
    """
    pack, before = Pack(period or 1), list[int]()
    for prompt in sorted(prompts):
        shared = sum(1 for _ in takewhile(lambda pair: pair[0] == pair[1], zip(before, prompt, strict=False)))
        if pack.tokens and (not period or len(pack.tokens) + len(prompt) - shared > most):
            yield pack
            pack, shared = Pack(period or 1), 0
        pack.add(prompt, shared)
        before = prompt
    if pack.tokens:
        yield pack


def _padded(rows: list[int], length: int) -> list[int]:
    return rows + [NOBODY] * (length - len(rows))


def _starts(shared: int, length: int) -> range:
    """Where a prompt's blocks start that hold a token beyond the shared ones."""
    return range(shared // BLOCK * BLOCK, length, BLOCK)
