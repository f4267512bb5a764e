"""A tokenizer read in parts is the tokenizer that the library reads whole."""

from __future__ import annotations

import json
from pathlib import Path

import pytest

pytest.importorskip("tokenizers")

from tokenizers import Tokenizer, models

from radllm_backend.language.base_models import BaseModelFolder
from radllm_backend.language.tokenizer_file import read_tokenizer

TEXT = "<|im_start|>The 'Zone Percentage' feature is measured at -1.203. <|im_end|>é\n"


def assert_same(path: Path) -> None:
    ours, whole = read_tokenizer(path), Tokenizer.from_file(str(path))
    assert json.loads(ours.to_str()) == json.loads(whole.to_str())
    assert ours.encode(TEXT).ids == whole.encode(TEXT).ids


def test_smollm2(smollm2: BaseModelFolder) -> None:
    assert_same(smollm2.folder / "tokenizer.json")


@pytest.mark.parametrize("options", [{}, {"byte_fallback": True, "unk_token": "<|endoftext|>"}])
def test_merges_in_either_form_and_the_model_s_options(tiny_base: Path, tmp_path: Path, options: dict) -> None:
    description = json.loads((tiny_base / "tokenizer.json").read_text())
    merges = [tuple(merge) for merge in description["model"]["merges"]]
    assert len(merges) > 20
    description["model"] |= options
    for form in (merges, [" ".join(merge) for merge in merges]):
        description["model"]["merges"] = form
        (tmp_path / "tokenizer.json").write_text(json.dumps(description))
        assert_same(tmp_path / "tokenizer.json")


def test_another_kind_of_model_is_left_to_the_library(tmp_path: Path) -> None:
    words = Tokenizer(models.WordLevel({"the": 0, "[UNK]": 1}, unk_token="[UNK]"))
    words.save(str(tmp_path / "tokenizer.json"))
    assert_same(tmp_path / "tokenizer.json")
