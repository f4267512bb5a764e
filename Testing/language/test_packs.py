"""Prompts read together: each token once, and every hidden state as if its prompt were alone."""

from __future__ import annotations

from pathlib import Path

import pytest

torch = pytest.importorskip("torch")

from hypothesis import given, settings
from hypothesis import strategies as st

from radllm_backend.language import base_models
from radllm_backend.language import packs as prompt_packs
from radllm_backend.language.packs import BLOCK, packs
from radllm_backend.language.torch_reader import LoraClassifier, PromptReader

BEGINNING = "Classify benign or malignant of this mammography based on given standardized radiomic features."
SENTENCE = " The 'Sphericity' feature is measured at {}."
PROMPTS = [
    "a",  # fewer tokens than a matrix product has rows
    "ab",
    *(BEGINNING + "".join(SENTENCE.format(f"{number / 7:.3f}") * (1 + number % 4)) for number in range(12)),
    BEGINNING,
    BEGINNING + SENTENCE.format("0.000") + SENTENCE.format("-1.000"),
    BEGINNING + SENTENCE.format("0.000") + SENTENCE.format("1.000"),
]

tokenised = st.lists(st.lists(st.integers(0, 2), min_size=1, max_size=90), min_size=1, max_size=12, unique_by=tuple)


@pytest.fixture
def reader(tiny_base: Path, fresh_cache: Path) -> PromptReader:
    return PromptReader(base_models.locate(tiny_base))


@given(tokenised)
@settings(deadline=None, max_examples=200)
def test_packs_hold_every_prompt_and_no_shared_beginning_twice(prompts):
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(prompt_packs, "_MOST", 100)
        found = list(packs(prompts))
    read = [[pack.tokens[row] for row in rows] for pack in found for rows in pack.prompts]
    assert read == sorted(prompts)
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
    asked = {row for blocks in pack._blocks() for row in blocks.queries.flatten().tolist()} - {-1}
    assert asked == set(range(len(pack.tokens)))
    assert all(blocks.queries.shape[1] == BLOCK for blocks in pack._blocks())
    alone = sum(one.effort for prompt in prompts for one in packs([prompt]))
    assert pack.effort < alone or len(prompts) == 1


def test_packs_have_few_sizes():
    sizes = [prompt_packs._rounded(tokens) for tokens in range(1, 2049)]
    assert len(set(sizes)) == 40
    assert all(tokens <= size <= max(16, 1.13 * tokens, tokens + 15) for tokens, size in enumerate(sizes, 1))
    assert sizes[-1] == 2048


@pytest.mark.parametrize("threads", [1, 2])
@pytest.mark.parametrize("most", [4096, 150])
def test_hidden_states_are_the_same_to_the_last_bit_in_any_company(reader, monkeypatch, threads, most):
    monkeypatch.setattr(prompt_packs, "_MOST", most)
    before = torch.get_num_threads()
    torch.set_num_threads(threads)
    try:
        together = reader.embed(PROMPTS)
        for index, prompt in enumerate(PROMPTS):
            alone = reader.embed([prompt])
            assert torch.equal(alone["mean"][0], together["mean"][index])
            assert torch.equal(alone["last"][0], together["last"][index])
    finally:
        torch.set_num_threads(before)


def test_a_pack_reads_what_the_plain_model_reads(reader, tiny_base):
    plain = base_models.load_backbone(base_models.locate(tiny_base))
    found = reader.embed(PROMPTS)
    with torch.inference_mode():
        for index, prompt in enumerate(PROMPTS):
            states = plain(input_ids=torch.tensor([reader.tokenise(prompt)])).last_hidden_state[0]
            assert torch.allclose(found["last"][index], states[-1], atol=1e-5)
            assert torch.allclose(found["mean"][index], states.mean(dim=0), atol=1e-5)


@pytest.mark.parametrize("most", [4096, 150])
def test_gradients_are_those_of_the_same_prompts_read_side_by_side(tiny_base, fresh_cache, monkeypatch, most):
    """A shared token is read once and belongs to several prompts; where several blocks hold it, it counts once."""
    monkeypatch.setattr(prompt_packs, "_MOST", most)
    classifier = LoraClassifier(base_models.locate(tiny_base))
    torch.manual_seed(1)
    for parameter in classifier.trainable():
        torch.nn.init.normal_(parameter, std=0.3)
    prompts = [classifier.tokenise(text) for text in [*PROMPTS, PROMPTS[3]]]
    shares = torch.linspace(-1, 2, len(prompts))

    def gradients(logits):
        found = torch.autograd.grad((logits * shares).sum(), classifier.trainable())
        return torch.cat([gradient.flatten() for gradient in found])

    states, lengths = classifier._read(prompts)
    padded = gradients(classifier.head(states[torch.arange(len(prompts)), lengths - 1]).squeeze(1))
    packed = gradients(classifier(prompts))
    assert padded.norm() > 1
    assert torch.allclose(packed, padded, rtol=1e-4, atol=1e-5 * float(padded.abs().max()))


def test_progress_counts_different_prompts(reader, monkeypatch):
    monkeypatch.setattr(prompt_packs, "_MOST", 150)
    seen: list[float] = []
    reader.score([*PROMPTS, *PROMPTS], lambda what, done: seen.append(done))
    assert len(seen) > 2
    assert seen[-1] == 1
    assert all(float(done * len(set(PROMPTS))).is_integer() for done in seen)
    assert seen == sorted(set(seen))


def test_smollm2_reads_together_what_it_reads_alone(smollm2):
    reader = PromptReader(smollm2)
    together = reader.embed(PROMPTS[-4:])
    for index, prompt in enumerate(PROMPTS[-4:]):
        assert torch.equal(reader.embed([prompt])["mean"][0], together["mean"][index])
