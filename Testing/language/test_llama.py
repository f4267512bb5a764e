"""The transformer in numpy gives what transformers gives, for every kind of LLaMA model that it reads."""

from __future__ import annotations

import json
import shutil
from pathlib import Path

import numpy as np
import pytest

torch = pytest.importorskip("torch")
transformers = pytest.importorskip("transformers")

from safetensors.torch import load_file, save_file
from tokenizers import Tokenizer
from tokenizers.processors import TemplateProcessing

from radllm_backend.errors import RadllmError
from radllm_backend.language import backbone, base_models
from radllm_backend.language.adapters import Adapter, AdapterShape, lora_name
from radllm_backend.language.prompt import Readout
from radllm_backend.language.reader import NumpyReader, open_reader
from radllm_backend.language.torch_reader import LoraClassifier, TorchReader, stored_precision

PROMPTS = [
    "The 'Sphericity' feature is measured at 0.985.",
    "The 'Sphericity' feature is measured at 0.985. The 'Zone Percentage' feature is measured at -1.196." * 3,
    "a",
]


@pytest.fixture
def copied(tiny_base: Path, fresh_cache: Path, tmp_path: Path) -> Path:
    return Path(shutil.copytree(tiny_base, tmp_path / "base"))


def with_config(folder: Path, **changes: object) -> base_models.BaseModelFolder:
    config = json.loads((folder / "config.json").read_text())
    (folder / "config.json").write_text(json.dumps({**config, **changes}))
    return base_models.locate(folder)


def expected(base: base_models.BaseModelFolder, prompt: str, layers: int | None = None) -> np.ndarray:
    """The hidden states of transformers, of a model that is cut off after some layers."""
    model = backbone.load_backbone(base)
    model.layers = model.layers[:layers]
    ids = torch.tensor([base_models.load_tokenizer(base).encode(prompt).ids])
    with torch.inference_mode():
        return model(input_ids=ids).last_hidden_state[0].numpy()


def same_numbers(base: base_models.BaseModelFolder, tolerance: float = 1e-5) -> None:
    reader = NumpyReader(base)
    readouts = [Readout(layers, pooling) for layers in {1, reader.depth} for pooling in ("last", "mean")]
    found = reader.embed(PROMPTS, readouts)
    for layers in {1, reader.depth}:
        for index, prompt in enumerate(PROMPTS):
            states = expected(base, prompt, layers)
            assert np.allclose(found[Readout(layers, "last")][index], states[-1], atol=tolerance)
            assert np.allclose(found[Readout(layers, "mean")][index], states.mean(axis=0), atol=tolerance)


def test_it_computes_what_transformers_computes_at_every_layer(copied):
    same_numbers(base_models.locate(copied))


def test_smollm2_as_well(smollm2):
    same_numbers(smollm2, 1e-4)


@pytest.mark.parametrize("kind", [torch.bfloat16, torch.float16])
def test_weights_in_16_bits_in_several_files(copied, kind):
    weights = {name: tensor.to(kind) for name, tensor in load_file(copied / "model.safetensors").items()}
    (copied / "model.safetensors").unlink()
    places = {}
    for number, part in enumerate((sorted(weights)[::2], sorted(weights)[1::2])):
        name = f"model-{number}.safetensors"
        save_file({one: weights[one] for one in part}, copied / name, metadata={"format": "pt"})
        places.update(dict.fromkeys(part, name))
    (copied / "model.safetensors.index.json").write_text(json.dumps({"weight_map": places}))
    same_numbers(base_models.locate(copied))


@pytest.mark.parametrize(
    "change",
    [
        {"rope_parameters": {"rope_type": "default", "rope_theta": 500.0}},
        {"rope_parameters": {"rope_type": "linear", "factor": 2.0, "rope_theta": 10000.0}},
        {
            "rope_parameters": {
                "rope_type": "llama3",
                "rope_theta": 100.0,
                "factor": 8.0,
                "low_freq_factor": 1.0,
                "high_freq_factor": 4.0,
                "original_max_position_embeddings": 64,
            }
        },
        {"rope_parameters": None, "rope_theta": 50.0},  # as older models say it
        {"rope_parameters": None, "rope_theta": 50.0, "rope_scaling": {"type": "linear", "factor": 4.0}},
        {
            "rope_parameters": None,
            "rope_theta": 100.0,
            "rope_scaling": {
                "rope_type": "llama3",
                "factor": 8.0,
                "low_freq_factor": 1.0,
                "high_freq_factor": 4.0,
                "original_max_position_embeddings": 64,
            },
        },
        {"rms_norm_eps": 0.1},
    ],
    ids=["theta", "linear", "llama3", "older", "older linear", "older llama3", "epsilon"],
)
def test_other_positions_and_norms(copied, change):
    same_numbers(with_config(copied, **change))


@pytest.mark.parametrize(
    "sizes",
    [
        {"num_key_value_heads": 1},
        {"num_key_value_heads": 4},
        {"num_key_value_heads": 2, "head_dim": 12},
        {"hidden_size": 48, "num_attention_heads": 6, "num_key_value_heads": 3, "head_dim": 4},
        {"tie_word_embeddings": False},
        {"num_hidden_layers": 5, "hidden_size": 24, "num_attention_heads": 2, "num_key_value_heads": 2},
    ],
    ids=["one key head", "a key head each", "wide heads", "narrow heads", "untied", "deep"],
)
def test_other_sizes(copied, sizes):
    same_numbers(made_anew(copied, **sizes))


def made_anew(folder: Path, **changes: object) -> base_models.BaseModelFolder:
    """Another model in the folder, of other sizes and random weights, in the same words."""
    config = json.loads((folder / "config.json").read_text())
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(5)
        model = transformers.LlamaForCausalLM(transformers.LlamaConfig(**{**config, "head_dim": None, **changes}))
    model.save_pretrained(folder)
    (folder / "generation_config.json").unlink()
    return base_models.locate(folder)


def test_a_transformer_that_was_saved_without_its_head(copied):
    weights = load_file(copied / "model.safetensors")
    bare = {name.removeprefix("model."): tensor for name, tensor in weights.items()}
    save_file(bare, copied / "model.safetensors", metadata={"format": "pt"})
    same_numbers(base_models.locate(copied))


def add_biases(folder: Path) -> None:
    weights = load_file(folder / "model.safetensors")
    generator = torch.Generator().manual_seed(3)
    for name in [one for one in weights if "_proj.weight" in one]:
        bias = torch.randn(len(weights[name]), generator=generator) * 0.1
        weights[name.replace(".weight", ".bias")] = bias
    save_file(weights, folder / "model.safetensors", metadata={"format": "pt"})


@pytest.mark.parametrize("attention", [True, False])
@pytest.mark.parametrize("feed_forward", [True, False])
def test_biases_are_added_where_the_configuration_says_so(copied, attention, feed_forward):
    add_biases(copied)
    same_numbers(with_config(copied, attention_bias=attention, mlp_bias=feed_forward))


@pytest.mark.parametrize(("setting", "name"), [("attention_bias", "self_attn"), ("mlp_bias", "mlp")])
def test_a_bias_that_is_missing_is_one_sentence(copied, setting, name):
    with pytest.raises(RadllmError, match=rf"lack layers\.0\.{name}\.\w+\.bias: fetch the model again"):
        NumpyReader(with_config(copied, **{setting: True}))


@pytest.mark.parametrize("begins", [True, False])
def test_a_tokenizer_that_puts_a_token_before_every_prompt(copied, begins):
    """As transformers does; ``tokenizer_config.json`` has no say in it."""
    tokenizer = Tokenizer.from_file(str(copied / "tokenizer.json"))
    if begins:
        first = "<|im_start|>"
        tokenizer.post_processor = TemplateProcessing(
            single=f"{first} $A", special_tokens=[(first, tokenizer.token_to_id(first))]
        )
        tokenizer.save(str(copied / "tokenizer.json"))
    base = base_models.locate(copied)
    theirs = transformers.AutoTokenizer.from_pretrained(copied, local_files_only=True)
    own = NumpyReader(base)
    for prompt in [*PROMPTS, "<|im_end|>", *([""] if begins else [])]:
        assert own.tokenise(prompt) == theirs(prompt)["input_ids"]
    assert (own.tokenise(PROMPTS[0])[0] == 1) is begins
    same_numbers(base)


@pytest.mark.parametrize(
    ("change", "sentence"),
    [
        ({"hidden_act": "gelu"}, "is no plain LLaMA model"),
        ({"partial_rotary_factor": 0.5}, "is no plain LLaMA model"),
        ({"model_type": "mistral", "sliding_window": 16}, "holds a model of type 'mistral': only 'llama'"),
        ({"model_type": "qwen3"}, "holds a model of type 'qwen3': only 'llama'"),
        ({"rope_parameters": {"rope_type": "yarn", "factor": 2.0, "rope_theta": 1e4}}, "turns positions in a way"),
        ({"hidden_size": 64}, "do not fit its config.json"),
        ({"rope_parameters": None, "rope_scaling": {"type": "dynamic", "factor": 2.0}}, "turns positions in a way"),
        ({"rope_parameters": {"rope_type": "llama3", "rope_theta": 1e4, "factor": 8.0}}, "malformed"),
        ({"vocab_size": 200}, "do not fit its config.json"),
        ({"num_hidden_layers": 3}, r"lack layers\.2\."),
        ({"num_attention_heads": 3}, "malformed"),
        ({"num_attention_heads": "many"}, "malformed"),
        ({"hidden_size": None}, "malformed"),
    ],
)
def test_other_models_and_damaged_ones_are_refused_in_one_sentence(copied, change, sentence):
    with pytest.raises(RadllmError, match=sentence):
        NumpyReader(with_config(copied, **change))


def test_a_model_that_lacks_weights_is_refused(copied):
    weights = load_file(copied / "model.safetensors")
    del weights["model.norm.weight"]
    save_file(weights, copied / "model.safetensors", metadata={"format": "pt"})
    with pytest.raises(RadllmError, match=r"lack norm\.weight"):
        NumpyReader(base_models.locate(copied))


def test_no_more_layers_are_read_than_there_are(copied):
    base = base_models.locate(copied)
    with pytest.raises(RadllmError, match="has 2 layers, and 3 cannot be read"):
        NumpyReader(base, layers=3)
    shallow = NumpyReader(base, layers=1)
    assert shallow.depth == 2
    assert shallow.embed(["text"], [Readout(1, "last")])[Readout(1, "last")].shape == (1, 32)
    with pytest.raises(RadllmError, match="This model reads at most 1 layer of its base model, and not 2"):
        shallow.embed(["text"], [Readout(2, "last")])


# ------------------------------------------------------------------------------------------------ a trained adapter


def trained(base: base_models.BaseModelFolder, rank: int = 2) -> LoraClassifier:
    """One whose adapter and head do change something."""
    made = LoraClassifier(base, AdapterShape(rank=rank), seed=1)
    torch.manual_seed(2)
    with torch.no_grad():
        for parameter in made.trainable():
            parameter.add_(torch.randn_like(parameter) * 0.05)
    return made


def adapter_of(classifier: LoraClassifier, rank: int = 2) -> Adapter:
    weights = {name: tensor.numpy() for name, tensor in stored_precision(classifier.weights()).items()}
    return Adapter(weights, AdapterShape(rank=rank))


def test_an_adapter_that_is_added_in_scores_as_peft_does(copied):
    base = base_models.locate(copied)
    classifier = trained(base)
    classifier.load_weights(stored_precision(classifier.weights()))
    scores = NumpyReader(base, adapter_of(classifier)).score(PROMPTS)
    assert scores == pytest.approx(classifier.score(PROMPTS), abs=1e-4)
    assert max(scores) - min(scores) > 0.01
    assert TorchReader.opened(base, adapter_of(classifier), None).score(PROMPTS) == pytest.approx(scores, abs=1e-4)


def test_an_adapter_of_another_shape_is_refused(copied):
    base = base_models.locate(copied)
    adapter = adapter_of(trained(base))
    with pytest.raises(RadllmError, match="does not fit its base model"):
        open_reader(base, Adapter(adapter.weights, AdapterShape(rank=4)))
    with pytest.raises(RadllmError, match=r"does not fit its base model \(tensor 'more'\)"):
        open_reader(base, Adapter({**adapter.weights, "more": np.zeros(1)}, AdapterShape(rank=2)))
    missing = lora_name("layers.1.mlp.up_proj", "B")
    with pytest.raises(RadllmError, match="up_proj"):
        open_reader(base, Adapter({k: v for k, v in adapter.weights.items() if k != missing}, AdapterShape(rank=2)))


def test_a_base_model_alone_has_no_score(copied):
    with pytest.raises(RadllmError, match="no head of its own"):
        open_reader(base_models.locate(copied)).score(PROMPTS)


def test_the_reader_of_a_gpu_gives_the_same_readouts(copied):
    """On this computer it computes on the CPU."""
    base = base_models.locate(copied)
    readouts = [Readout(1, "mean"), Readout(2, "last"), Readout(2, "mean")]
    own, theirs = (reader.embed([*PROMPTS, PROMPTS[0]], readouts) for reader in (NumpyReader(base), TorchReader(base)))
    for readout in readouts:
        assert np.allclose(own[readout], theirs[readout], atol=1e-5)
    shallow = TorchReader(base, layers=1).embed(PROMPTS, readouts[:1])
    assert np.allclose(shallow[readouts[0]], own[readouts[0]][:3], atol=1e-5)
