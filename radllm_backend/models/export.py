"""A model as one folder of merged weights that other servers of language models can read: ``radllm export``."""

from __future__ import annotations

import json
import shutil
from pathlib import Path

import numpy as np

from radllm_backend.errors import RadllmError
from radllm_backend.files import read_json, whole_folder
from radllm_backend.language.adapters import Adapter, AdapterShape
from radllm_backend.language.base_models import BaseModelFolder, locate
from radllm_backend.language.llama import merged_weights
from radllm_backend.models.bundle import ADAPTER, Bundle, ModelCard, refuse_existing

LABELS = ("benign", "malignant")


def export_name(card: ModelCard, sha256: str) -> str:
    """The name under which an exported model has to be served: it says which weights it has."""
    return f"{card.name}-{sha256[:12]}"


def require_lora_head(card: ModelCard) -> None:
    """RadllmError for a model that reads hidden states otherwise than through one linear head."""
    if card.adapter is None or card.head is not None:
        raise RadllmError(
            f"The model {card.name} ({card.method}) reads the hidden states together with the features, "
            "which other servers cannot: export a model with a LoRA head, or serve this one with radllm's own engine."
        )


def export(bundle: Bundle, folder: Path, base: str | Path | None = None) -> str:
    """Write a model as a Hugging Face folder with the architecture ``LlamaForSequenceClassification``, in 32 bits.

    Its head has two labels, benign (a row of zeros) and malignant (the model's own head without its bias, for which the
    architecture has no place), so that the difference of the two logits and the bias together are the model's log-odds.

    Args:
        folder: a new or an empty one.
        base: where the base model lies, if not in the cache under the name in the card.

    Returns:
        The name to serve it under.

    Raises:
        RadllmError: the model has no LoRA head, its base model is not there, or the folder cannot be written.
    """
    require_lora_head(bundle.card)
    refuse_existing(folder)
    found = locate(base if base is not None else bundle.card.base.name)
    try:
        with whole_folder(folder) as partial:
            _write_weights(bundle, found, partial)
            _write_config(found, partial)
            for path in found.folder.glob("tokenizer*.json"):
                shutil.copyfile(path, partial / path.name)
    except OSError as error:
        raise RadllmError(
            f"The model cannot be written to {folder} ({error.strerror}): choose another folder."
        ) from error
    return export_name(bundle.card, bundle.sha256)


def _write_weights(bundle: Bundle, base: BaseModelFolder, folder: Path) -> None:
    from safetensors.numpy import load_file, save_file

    adapter_card = bundle.card.adapter
    assert adapter_card is not None  # of a model with a LoRA head
    adapter = Adapter(load_file(bundle.folder / ADAPTER), AdapterShape(adapter_card.rank, adapter_card.alpha))
    weights = merged_weights(base, adapter)
    malignant, _ = adapter.head
    score = np.stack([np.zeros_like(malignant), malignant])
    save_file({**weights, "score.weight": score}, folder / "model.safetensors", metadata={"format": "pt"})


def _write_config(base: BaseModelFolder, folder: Path) -> None:
    config = {
        **read_json(base.folder / "config.json"),
        "architectures": ["LlamaForSequenceClassification"],
        "id2label": {str(number): label for number, label in enumerate(LABELS)},
        "label2id": {label: number for number, label in enumerate(LABELS)},
        "problem_type": "single_label_classification",
        "dtype": "float32",
    }
    config.pop("torch_dtype", None)
    (folder / "config.json").write_text(json.dumps(config, indent=1) + "\n", encoding="utf-8")
