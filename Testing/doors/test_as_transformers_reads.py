"""The shipped models say through transformers what they say through numpy: the same tokens, probabilities and calls.

transformers reads on its own: its tokenizer, its loading of the weights, its attention, and its own way of reading once
what prompts begin with. What follows the hidden states, the head and its calibration, is the model's.
"""

from __future__ import annotations

import os
import random
from collections.abc import Callable, Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

import numpy as np
import pytest

torch = pytest.importorskip("torch")
transformers = pytest.importorskip("transformers")

from radllm_backend import Model
from radllm_backend.features.descriptors import VOCABULARIES
from radllm_backend.features.table import read_table
from radllm_backend.language.prompt import Readout
from radllm_backend.models.bundle import DescriptorSummary, FeatureSummary
from radllm_backend.models.explainer import LesionReading
from radllm_backend.models.prediction import call_word
from radllm_backend.models.shipped import shipped_models
from radllm_backend.records import Features

TABLES = Path(__file__).resolve().parents[2] / "Resources" / "TrainingTables"
MANY, FEW = 1000, 12
PROBABILITY = 1e-4
"""By how much two probabilities may differ."""
STATES = 1e-3
"""By how much two hidden states may differ, whose largest values are about 50."""
TOGETHER = 16
"""Prompts that transformers reads together."""
ALIKE = 12
"""Invented lesions that differ in the last two parts of the prompt only, which makes reading them cheaper."""

Lesion = tuple[dict[str, float], dict[str, str]]
"""Values of features, and the radiologist's words."""


def tabled(name: str) -> Iterator[Lesion]:
    """The lesions of a training table."""
    for row in read_table(TABLES / f"{name}.csv").rows():
        yield {key: value for key, value in row.values.items() if value is not None}, dict(row.descriptors)


def value(chance: random.Random, row: FeatureSummary) -> float:
    """Mostly as the training lesions have it; one in four anywhere, as no lesion has it."""
    if chance.random() < 0.75:
        return chance.uniform(row.quantiles[0], row.quantiles[-1])
    return row.mean + row.deviation * chance.choice((-1, 1)) * 10 ** chance.uniform(-4, 4)


def words(chance: random.Random, row: DescriptorSummary) -> str:
    """None, one or two terms of the vocabulary, whatever the other descriptors are."""
    vocabulary = VOCABULARIES[row.descriptor]
    terms = [term for term in vocabulary.terms if term != "none"]
    count = chance.choice((0, 1, 1, 2)) if vocabulary.several else chance.choice((0, 1, 1))
    return " and ".join(chance.sample(terms, min(count, len(terms))))


def invented(model: Model) -> Iterator[Lesion]:
    """Lesions without end, some of which nobody has."""
    chance = random.Random(17)
    features, descriptors = model.card.features, model.card.descriptors
    while True:
        values = {row.feature: value(chance, row) for row in features}
        given = {row.descriptor: words(chance, row) for row in descriptors}
        for _ in range(ALIKE):
            values |= {row.feature: value(chance, row) for row in features[-2:]}
            given |= {row.descriptor: words(chance, row) for row in descriptors[-2:]}
            yield dict(values), dict(given)


def readings(model: Model, count: int) -> list[LesionReading]:
    """Each another prompt: of the training table, a third at most, and invented ones."""
    table = [model.read(Features(values=values, descriptors=given)) for values, given in tabled(model.name)]
    random.Random(3).shuffle(table)
    found = {reading.prompt: reading for reading in table[: count // 3]}
    for values, given in invented(model):
        if len(found) == count:
            break
        if values or any(given.values()):
            reading = model.read(Features(values=values, descriptors=given))
            found[reading.prompt] = reading
    return list(found.values())


# --- transformers ---------------------------------------------------------------------------------------------------


def beginning(prompts: Sequence[list[int]]) -> int:
    """With how many tokens all begin; at least one of each is left."""
    shortest = min(map(len, prompts)) - 1
    return next((place for place in range(shortest) if len({one[place] for one in prompts}) > 1), shortest)


def read_together(backbone: Any, prompts: Sequence[list[int]]) -> list[np.ndarray]:
    """The last hidden states of each prompt, [tokens × hidden size].

    What follows the end of a shorter prompt is seen by none of its tokens, for attention looks back only.
    """
    shared = beginning(prompts)
    rest = [prompt[shared:] for prompt in prompts]
    longest = max(map(len, rest))
    with torch.inference_mode():
        begun = backbone(input_ids=torch.tensor([prompts[0][:shared]]), use_cache=True) if shared else None
        kept = begun.past_key_values if begun else transformers.DynamicCache(config=backbone.config)
        if begun:
            kept.batch_repeat_interleave(len(prompts))
        padded = torch.tensor([tokens + [0] * (longest - len(tokens)) for tokens in rest])
        states = backbone(input_ids=padded, past_key_values=kept, use_cache=True).last_hidden_state
    first = begun.last_hidden_state[0].numpy() if begun else np.empty((0, states.shape[-1]), np.float32)
    return [np.concatenate([first, own[: len(tokens)].numpy()]) for own, tokens in zip(states, rest, strict=True)]


def states_of(backbone: Any, prompts: Sequence[list[int]], readout: Readout) -> np.ndarray:
    """What a readout gives of each prompt, [prompts × hidden size]."""
    order = sorted(range(len(prompts)), key=lambda index: prompts[index])
    groups = [order[start : start + TOGETHER] for start in range(0, len(order), TOGETHER)]
    pooled: Callable[[np.ndarray], np.ndarray] = (
        (lambda states: states[-1]) if readout.pooling == "last" else (lambda states: states.mean(axis=0))
    )
    found: dict[int, np.ndarray] = {}

    def read(group: list[int]) -> None:
        together = read_together(backbone, [prompts[index] for index in group])
        found.update({index: pooled(states) for index, states in zip(group, together, strict=True)})

    with ThreadPoolExecutor(len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else 1) as beside:
        list(beside.map(read, groups))
    return np.array([found[index] for index in range(len(prompts))])


def opened(folder: Path, layers: int) -> Any:
    """A model that is cut off after some layers: its last normalisation follows."""
    model = transformers.AutoModel.from_pretrained(folder, local_files_only=True, dtype=torch.float32)
    model.layers = model.layers[:layers]
    return model.eval()


@pytest.fixture
def one_thread() -> Iterator[None]:
    """Of each of PyTorch's operations: several prompts are read beside each other, and a busy core holds up none."""
    before = torch.get_num_threads()
    torch.set_num_threads(1)
    yield
    torch.set_num_threads(before)


@pytest.mark.parametrize("count", [FEW, pytest.param(MANY, marks=[pytest.mark.long, pytest.mark.timeout(0)])])
@pytest.mark.parametrize("name", shipped_models())
@pytest.mark.usefixtures("one_thread")
def test_a_shipped_model_says_the_same_through_transformers(smollm2: Any, name: str, count: int) -> None:
    model = Model.load(name)
    assert model._head, "a trained adapter is compared with peft in Testing/language"
    asked = readings(model, count)
    prompts = [reading.prompt for reading in asked]
    readout = model._readout

    tokens = transformers.AutoTokenizer.from_pretrained(smollm2.folder, local_files_only=True)(prompts)["input_ids"]
    assert [model.reader.tokenise(prompt) for prompt in prompts] == tokens

    theirs = states_of(opened(smollm2.folder, readout.layers), tokens, readout)
    logits, hidden = model._logits(asked)
    assert hidden
    assert np.abs(hidden[readout] - theirs).max() < STATES

    design = np.vstack([model._design(reading) for reading in asked])
    calibration, threshold, uncertain = model.card.calibration, model.card.threshold, model._band(0.8)
    own = calibration.probabilities(np.array(logits))
    others = calibration.probabilities(model._head.logits(design, {readout: theirs}))
    print(f"largest difference of {count} probabilities: {np.abs(own - others).max():.1e}")
    assert len(set(own.tolist())) > count / 3  # they are not all told the same
    assert np.abs(own - others).max() < PROBABILITY
    calls = [[call_word(one, threshold, uncertain) for one in said.tolist()] for said in (own, others)]
    assert calls[0] == calls[1]
    assert len(set(calls[0])) > 1
