"""Prompts read together: each token once, and every hidden state as if its prompt were alone."""

from __future__ import annotations

from hypothesis import given, settings
from hypothesis import strategies as st

from radllm_backend.language.packs import BLOCK, NOBODY, Pack, packs

tokenised = st.lists(st.lists(st.integers(0, 2), min_size=1, max_size=90), min_size=1, max_size=12, unique_by=tuple)


@given(tokenised)
@settings(deadline=None, max_examples=200)
def test_packs_hold_every_prompt_and_no_shared_beginning_twice(prompts):
    found = list(packs(prompts, most=100))
    assert [prompt for pack in found for prompt in _read(pack)] == sorted(prompts)
    for pack in found:
        assert len(pack.tokens) <= 100
        assert [[pack.positions[row] for row in rows] for rows in pack.prompts] == [
            list(range(len(rows))) for rows in pack.prompts
        ]
        beginnings = {
            tuple(pack.tokens[row] for row in rows[: end + 1]) for rows in pack.prompts for end in range(len(rows))
        }
        assert len(pack.tokens) == len(beginnings)


@given(tokenised)
@settings(deadline=None, max_examples=50)
def test_every_token_attends_in_some_block_and_what_is_shared_costs_less(prompts):
    (pack,) = packs(prompts)
    blocks = [(start, one) for start, rows in pack.blocks().items() for one in rows]
    asked = [row for _, one in blocks for row in one.queries if row != NOBODY]
    assert sorted(asked) == list(range(len(pack.tokens)))
    assert all((len(one.queries), len(one.keys)) == (BLOCK, start + BLOCK) for start, one in blocks)
    alone = sum(one.effort for prompt in prompts for one in packs([prompt]))
    assert pack.effort < alone or len(prompts) == 1


@given(tokenised, st.sampled_from([4, 12, 48]))
@settings(deadline=None, max_examples=100)
def test_where_rows_repeat_a_token_stands_as_it_would_alone(prompts, period):
    for pack in packs(prompts, period=period, most=300):
        assert all(row % period == position % period for rows in pack.prompts for position, row in enumerate(rows))
        assert len(pack.filled().tokens) % period == 0
    assert sorted(prompt for pack in packs(prompts, period=period, most=300) for prompt in _read(pack)) == sorted(
        prompts
    )
    assert all(len(pack.prompts) == 1 for pack in packs(prompts, period=0))


def _read(pack: Pack) -> list[list[int]]:
    return [[pack.tokens[row] for row in rows] for rows in pack.prompts]


def test_packs_have_few_sizes():
    sizes = [len(next(packs([[0] * tokens])).filled().tokens) for tokens in range(1, 2049)]
    assert len(set(sizes)) == 40
    assert all(tokens <= size <= max(16, 1.13 * tokens, tokens + 15) for tokens, size in enumerate(sizes, 1))
    assert sizes[-1] == 2048
