"""The transformer without transformers: the same numbers, for the models that it reads."""

from __future__ import annotations

import json
import shutil
from pathlib import Path

import pytest

torch = pytest.importorskip("torch")

from safetensors.torch import load_file, save_file

from radllm_backend.errors import RadllmError
from radllm_backend.language import base_models, llama
from radllm_backend.language.packs import packs, prepare
from radllm_backend.language.torch_reader import LoraClassifier, PromptReader

TOKENS = [[5, 9, 7, 30, 31, 8] * 12, [5, 9, 7, 30, 31, 9] * 3, [5, 9, 7, 2]]


@pytest.fixture
def copied(tiny_base: Path, fresh_cache: Path, tmp_path: Path) -> Path:
    return Path(shutil.copytree(tiny_base, tmp_path / "base"))


def with_config(folder: Path, **changes: object) -> base_models.BaseModelFolder:
    config = json.loads((folder / "config.json").read_text())
    (folder / "config.json").write_text(json.dumps({**config, **changes}))
    return base_models.locate(folder)


def same_numbers(base: base_models.BaseModelFolder) -> bool:
    own, theirs = llama.load(base), prepare(base_models.load_backbone(base))
    equal = []
    with torch.inference_mode():
        for tokens in TOKENS:
            ids = torch.tensor([tokens])
            equal.append(torch.equal(own(ids).last_hidden_state, theirs(input_ids=ids).last_hidden_state))
        (pack,) = packs(TOKENS)
        equal += [torch.equal(*pair) for pair in zip(pack.read(own), pack.read(theirs), strict=True)]
    return all(equal)


def test_it_computes_what_transformers_computes_to_the_last_bit(copied):
    assert same_numbers(base_models.locate(copied))


def test_smollm2_as_well(smollm2):
    assert same_numbers(smollm2)


def test_weights_in_16_bits_and_other_frequencies(copied):
    weights = {name: tensor.bfloat16() for name, tensor in load_file(copied / "model.safetensors").items()}
    save_file(weights, copied / "model.safetensors", metadata={"format": "pt"})
    assert same_numbers(with_config(copied, rope_parameters={"rope_type": "default", "rope_theta": 500.0}))


def test_its_tensors_have_the_names_that_they_have_in_transformers(copied):
    base = base_models.locate(copied)
    assert llama.load(base).state_dict().keys() == base_models.load_backbone(base).state_dict().keys()


@pytest.mark.parametrize(
    "change",
    [
        {"attention_bias": True},
        {"mlp_bias": True},
        {"hidden_act": "gelu"},
        {"rope_parameters": {"rope_type": "linear", "factor": 2.0, "rope_theta": 10000.0}},
        {"hidden_size": 64},
        {"num_hidden_layers": 3},
    ],
)
def test_it_leaves_other_models_and_damaged_ones_to_transformers(copied, change):
    assert llama.load(base_models.locate(copied)) is not None
    assert llama.load(with_config(copied, **change)) is None


def test_a_model_that_lacks_weights_is_refused_as_before(copied):
    weights = load_file(copied / "model.safetensors")
    del weights["model.norm.weight"]
    save_file(weights, copied / "model.safetensors", metadata={"format": "pt"})
    with pytest.raises(RadllmError, match=r"lack norm\.weight"):
        PromptReader(base_models.locate(copied))


def test_a_model_with_other_positions_is_read_by_transformers(copied):
    linear = {"rope_type": "linear", "factor": 2.0, "rope_theta": 10000.0}
    base = with_config(copied, rope_parameters=linear)
    states = PromptReader(base).embed(["A lesion."])["last"]
    assert torch.equal(states, LoraClassifier(base).embed(["A lesion."])["last"])
