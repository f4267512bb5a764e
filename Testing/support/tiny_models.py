"""The tiny base model of the tests and what is trained on it: the only fixtures that need torch.

    python -m Testing.support.tiny_models FUNCTION PATH ...

calls one of the four functions below, for a Python that has no torch itself.
"""

from __future__ import annotations

import dataclasses
import json
import sys
from pathlib import Path

POSITIONS = 1024
TEXTS = [
    "Classify benign or malignant of this mammography based on given standardized radiomic features.",
    "The 'Sphericity' feature is measured at 0.985. The 'Zone Percentage' feature is measured at 0.196.",
    "Classify benign or malignant of this breast ultrasound based on given standardized radiomic features.",
    "The 'Contrast' feature is measured at -1.203. The 'Elongation' feature is measured at 2.417.",
]


def make_base(folder: Path) -> None:
    """A LLaMA model of some 28,000 random weights (always the same), with a byte-level BPE tokenizer."""
    import torch
    import transformers

    folder.mkdir()
    vocabulary = _save_tokenizer(folder)
    config = transformers.LlamaConfig(
        vocab_size=vocabulary,
        hidden_size=32,
        intermediate_size=64,
        num_hidden_layers=2,
        num_attention_heads=4,
        num_key_value_heads=2,
        max_position_embeddings=POSITIONS,
        bos_token_id=1,
        eos_token_id=2,
        pad_token_id=2,
        tie_word_embeddings=True,
        # Larger than usual, so that so small a model's hidden states do differ from prompt to prompt.
        initializer_range=0.2,
    )
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(20240901)
        model = transformers.LlamaForCausalLM(config)
    model.save_pretrained(folder)
    (folder / "generation_config.json").unlink()


def train_cross_validated(table: Path, base: Path, output: Path) -> None:
    """A model in two folds; a server of it has to be told where its base model is."""
    _train(table, base, output, "", folds=2, epochs=2, scale_free=True, learning_rate=0.01)


def train_self_contained(table: Path, base: Path, output: Path) -> None:
    """A model in seconds, whose card names the folder of its base model, so that whoever has the model finds it."""
    # Only the base model of a catalogue or a hub is named in full in the card.
    _train(table, base, output, "test", folds=0, epochs=1, validation=0.25)


def train_on_words(table: Path, base: Path, output: Path) -> None:
    """As `train_self_contained`, of a table of descriptors alone, which says nothing of its images: mammograms."""
    _train(table, base, output, "test", "MG", folds=0, epochs=1, validation=0.25)


def _train(table: Path, base: Path, output: Path, origin: str, modality: str | None = None, **options: object) -> None:
    from radllm_backend.language import base_models
    from radllm_backend.learning.build import build_bundle
    from radllm_backend.learning.options import TrainingOptions
    from radllm_backend.learning.plan import LabelledTable, TrainingPlan
    from radllm_backend.records import say_nothing

    found = base_models.locate(base)
    plan = TrainingPlan(
        labelled=LabelledTable.of(table, "label", "patient", modality),
        base=dataclasses.replace(found, origin=origin or found.origin),
        options=TrainingOptions(features=4, rank=2, **options),
        output=output,
        description="Synthetic lesions.",
    )
    build_bundle(plan, say_nothing)


def _save_tokenizer(folder: Path) -> int:
    """Train and save a tokenizer that reads numbers digit by digit, as SmolLM2's does; return its vocabulary's size."""
    from tokenizers import Tokenizer, decoders, models, pre_tokenizers, trainers

    special = ["<|endoftext|>", "<|im_start|>", "<|im_end|>"]
    tokenizer = Tokenizer(models.BPE())
    digits = pre_tokenizers.Digits(individual_digits=True)
    tokenizer.pre_tokenizer = pre_tokenizers.Sequence([digits, pre_tokenizers.ByteLevel(add_prefix_space=False)])
    tokenizer.decoder = decoders.ByteLevel()
    trainer = trainers.BpeTrainer(
        vocab_size=300,
        special_tokens=special,
        initial_alphabet=pre_tokenizers.ByteLevel.alphabet(),
        show_progress=False,
    )
    tokenizer.train_from_iterator(TEXTS, trainer)
    tokenizer.save(str(folder / "tokenizer.json"))
    names = {"bos_token": special[1], "eos_token": special[2], "pad_token": special[2], "unk_token": special[0]}
    config = {"tokenizer_class": "PreTrainedTokenizerFast", "model_max_length": POSITIONS, **names}
    (folder / "tokenizer_config.json").write_text(json.dumps(config, indent=1), encoding="utf-8")
    return int(tokenizer.get_vocab_size())


if __name__ == "__main__":
    globals()[sys.argv[1]](*map(Path, sys.argv[2:]))
