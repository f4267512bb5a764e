"""What a worker does: measure lesions, and give text, whatever happens."""

from __future__ import annotations

import json
from typing import Any

import pytest

from Testing.support.batch_cases import candidate

pytest.importorskip("radiomics")
pytest.importorskip("distributed")
pytest.importorskip("pyarrow")

from radllm_backend.batch.worker import measure_lesions, settings_text
from radllm_backend.models.bundle import read_bundle


def measured(settings: str, reader: str) -> dict[str, Any]:
    (answer,) = measure_lesions([candidate(1).model_dump_json()], settings, reader)
    return dict(json.loads(answer))


def test_what_a_worker_gives_is_text_and_raises_nothing(tiny_model) -> None:
    settings = settings_text(read_bundle(tiny_model).card.extraction_settings())
    good = measured(settings, "Testing.support.batch_cases:read_generated")
    assert good["features"]["values"]
    assert good["reason"] == ""
    for reader in ("Testing.support.batch_cases:no_such", "no_such_module:read", "Testing.support.batch_cases"):
        bad = measured(settings, reader)
        assert bad["features"] is None
        assert bad["reason"].startswith("It cannot be measured (")
