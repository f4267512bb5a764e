"""Packs read by PyTorch: what an adapter learns from them is what it learns from prompts side by side."""

from __future__ import annotations

import pytest

torch = pytest.importorskip("torch")

from radllm_backend.language import base_models, torch_reader
from radllm_backend.language.backbone import load_backbone
from radllm_backend.language.packs import packs
from radllm_backend.language.torch_packs import prepare, read
from radllm_backend.language.torch_reader import LoraClassifier, TorchReader

BEGINNING = "Classify benign or malignant of this mammography based on given standardized radiomic features."
SENTENCE = " The 'Sphericity' feature is measured at {}."
PROMPTS = [
    "a",
    *(BEGINNING + "".join(SENTENCE.format(f"{number / 7:.3f}") * (1 + number % 4)) for number in range(8)),
    BEGINNING,
]


@pytest.mark.parametrize("most", [4096, 150])
def test_a_pack_reads_what_the_plain_model_reads(tiny_base, fresh_cache, most):
    base = base_models.locate(tiny_base)
    plain, packed = load_backbone(base), prepare(load_backbone(base))
    tokenizer = base_models.load_tokenizer(base)
    prompts = sorted(tokenizer.encode(prompt).ids for prompt in PROMPTS)
    with torch.inference_mode():
        found = [states for pack in packs(prompts, most=most) for states in read(pack, packed)]
        for prompt, states in zip(prompts, found, strict=True):
            expected = plain(input_ids=torch.tensor([prompt])).last_hidden_state[0]
            assert torch.allclose(states, expected, atol=1e-5)


@pytest.mark.parametrize("most", [4096, 150])
def test_gradients_are_those_of_the_same_prompts_read_side_by_side(tiny_base, fresh_cache, monkeypatch, most):
    """A shared token is read once and belongs to several prompts; where several blocks hold it, it counts once."""
    monkeypatch.setattr(torch_reader, "packs", lambda prompts: packs(prompts, most=most))
    classifier = LoraClassifier(base_models.locate(tiny_base))
    torch.manual_seed(1)
    for parameter in classifier.trainable():
        torch.nn.init.normal_(parameter, std=0.3)
    prompts = [classifier.tokenise(text) for text in [*PROMPTS, PROMPTS[3]]]
    shares = torch.linspace(-1, 2, len(prompts))

    def gradients(logits):
        found = torch.autograd.grad((logits * shares).sum(), classifier.trainable())
        return torch.cat([gradient.flatten() for gradient in found])

    padded = gradients(classifier.head(TorchReader._last_of_each(classifier, prompts)).squeeze(1))
    packed = gradients(classifier(prompts))
    assert padded.norm() > 1
    assert torch.allclose(packed, padded, rtol=1e-4, atol=1e-5 * float(padded.abs().max()))
