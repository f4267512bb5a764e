"""The language model with its adapter."""

from __future__ import annotations

from pathlib import Path

import pytest

torch = pytest.importorskip("torch")

from radllm_backend.errors import RadllmError
from radllm_backend.language import base_models, linear, torch_reader
from radllm_backend.language.adapters import AdapterShape
from radllm_backend.language.backbone import load_backbone
from radllm_backend.language.prompt import Readout
from radllm_backend.language.torch_reader import LoraClassifier, stored_precision

PROMPTS = [
    "The 'Sphericity' feature is measured at 0.985.",
    "The 'Sphericity' feature is measured at 0.985. The 'Zone Percentage' feature is measured at -1.196.",
    "The 'Contrast' feature is measured at -12.203.",
]


def classifier(base: base_models.BaseModelFolder, rank: int = 2) -> LoraClassifier:
    """One whose adapter and head do change something."""
    made = LoraClassifier(base, AdapterShape(rank=rank), seed=1)
    torch.manual_seed(2)
    with torch.no_grad():
        for parameter in made.trainable():
            parameter.add_(torch.randn_like(parameter) * 0.02)
    return made


@pytest.fixture
def tiny(tiny_base: Path, fresh_cache: Path) -> base_models.BaseModelFolder:
    return base_models.locate(tiny_base)


def test_a_fresh_adapter_changes_nothing_and_the_head_says_nothing(tiny):
    fresh = LoraClassifier(tiny, AdapterShape(rank=2))
    assert fresh.score(PROMPTS) == [0.0] * 3
    plain, last = load_backbone(tiny), Readout(2, "last")
    tokens = torch.tensor([fresh.tokenise(PROMPTS[0])])
    found = torch.tensor(fresh.embed(PROMPTS[:1], [last])[last][0])
    assert torch.allclose(found, plain(input_ids=tokens).last_hidden_state[0, -1], atol=1e-6)


def test_every_linear_layer_has_an_adapter_and_the_head_is_fp32(tiny):
    names = [name for name in LoraClassifier(tiny, AdapterShape(rank=2)).weights() if "lora_A" in name]
    assert len(names) == 2 * 7
    assert classifier(tiny).head.weight.dtype == torch.float32


def test_padding_and_company_do_not_matter(tiny):
    model = classifier(tiny)
    together = model([model.tokenise(prompt) for prompt in PROMPTS]).detach()
    alone = [float(model([model.tokenise(prompt)]).detach()) for prompt in PROMPTS]
    assert together.tolist() == pytest.approx(alone, abs=1e-5)


def test_weights_survive_saving_in_the_stored_precision(tiny):
    model = classifier(tiny)
    stored = stored_precision(model.weights())
    assert {tensor.dtype for name, tensor in stored.items() if "lora" in name} == {torch.float16}
    other = LoraClassifier(tiny, AdapterShape(rank=2), seed=9)
    other.load_weights(stored)
    assert other.score(PROMPTS) == pytest.approx(model.score(PROMPTS), abs=1e-2)
    again = LoraClassifier(tiny, AdapterShape(rank=2), seed=5)
    again.load_weights(stored)
    assert again.score(PROMPTS) == other.score(PROMPTS)


def test_an_adapter_of_another_shape_is_refused(tiny):
    weights = classifier(tiny).weights()
    with pytest.raises(RadllmError, match="does not fit its base model"):
        LoraClassifier(tiny, AdapterShape(rank=4)).load_weights(weights)
    weights.popitem()
    with pytest.raises(RadllmError, match="does not fit its base model"):
        LoraClassifier(tiny, AdapterShape(rank=2)).load_weights(weights)


def test_a_prompt_that_is_too_long_is_an_error_never_a_cut(tiny):
    with pytest.raises(RadllmError, match="tokens and the base model reads 1024"):
        classifier(tiny).score(["The 'Sphericity' feature is measured at 0.985." * 100])


def test_a_whole_model_learns_by_onednn_what_it_learns_by_peft(tiny, monkeypatch):
    """On any processor: oneDNN's operator computes on all of them, and is chosen where it is faster."""
    gradients = []
    for by_onednn in (False, True):
        monkeypatch.setattr(linear, "_has_onednn", lambda chosen=by_onednn: chosen)
        model = classifier(tiny)
        layers = [type(layer).__name__ for layer in model.backbone.modules() if hasattr(layer, "lora_A")]
        assert layers == ["OneDnnLoraLinear" if by_onednn else "Linear"] * 14
        model([model.tokenise(prompt) for prompt in PROMPTS]).square().sum().backward()
        gradients.append([parameter.grad for parameter in model.trainable()])
    for own, theirs in zip(*gradients, strict=True):
        assert torch.allclose(own, theirs, rtol=1e-3, atol=1e-5)


def test_what_the_processor_has_is_asked_of_pytorch_s_public_function_first(monkeypatch):
    cpu = torch.device("cpu")
    found = torch_reader.computes_bf16(cpu), torch_reader.trains_in_bf16(cpu)
    monkeypatch.setattr(torch.cpu, "get_capabilities", lambda: {"avx512_bf16": True, "amx_tile": False})
    assert (torch_reader.computes_bf16(cpu), torch_reader.trains_in_bf16(cpu)) == (True, False)
    monkeypatch.delattr(torch.cpu, "get_capabilities")  # as in PyTorch 2.6
    monkeypatch.setattr(torch.cpu, "_is_avx512_bf16_supported", lambda: found[0], raising=False)
    monkeypatch.setattr(torch.cpu, "_is_amx_tile_supported", lambda: found[1], raising=False)
    assert (torch_reader.computes_bf16(cpu), torch_reader.trains_in_bf16(cpu)) == found
    monkeypatch.delattr(torch.cpu, "_is_avx512_bf16_supported")
    monkeypatch.delattr(torch.cpu, "_is_amx_tile_supported")
    assert (torch_reader.computes_bf16(cpu), torch_reader.trains_in_bf16(cpu)) == (False, False)
