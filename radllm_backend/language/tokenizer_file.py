"""A tokenizer out of its ``tokenizer.json``."""

from __future__ import annotations

import json
import time
from pathlib import Path
from typing import Any

from tokenizers import Tokenizer
from tokenizers.models import BPE

_PARTS = ("type", "vocab", "merges")
_BREATH = 0.01
"""Seconds for the other threads between two parts."""


def read_tokenizer(path: Path) -> Tokenizer:
    """What `Tokenizer.from_file` reads, in parts where the model is byte-pair encoding, as LLaMA's and SmolLM2's are.

    No thread goes on while the library reads, so that Slicer's windows would stand still for a tenth of a second. The
    parts take no longer together, and each but half of it.

    Raises:
        Exception: the file is malformed; the library raises nothing more precise.
    """
    description = json.loads(path.read_bytes())
    time.sleep(_BREATH)
    model: dict[str, Any] = description["model"]
    if model.get("type") != "BPE":
        return Tokenizer.from_file(str(path))
    options = {name: value for name, value in model.items() if name not in _PARTS and value is not None}
    # The added tokens find their numbers in the vocabulary.
    added = {token["content"]: token["id"] for token in description.get("added_tokens", [])}
    description["model"] = {**model, "vocab": added, "merges": []}
    tokenizer = Tokenizer.from_str(json.dumps(description))
    tokenizer.model = BPE(model["vocab"], [_pair(merge) for merge in model["merges"]], **options)
    return tokenizer


def _pair(merge: str | list[str]) -> tuple[str, str]:
    """Older files have ``"a b"`` for ``["a", "b"]``."""
    first, second = merge.split(" ") if isinstance(merge, str) else merge
    return first, second
