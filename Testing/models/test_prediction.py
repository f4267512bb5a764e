"""The published schema of prediction.json is the one of today, and predictions keep to it."""

from __future__ import annotations

import json
import re
from pathlib import Path

import pytest

from radllm_backend.models.prediction import SCHEMA_VERSION, Band, call_word, prediction_schema

PUBLISHED = Path(__file__).resolve().parents[2] / "Resources" / "Schemas" / f"prediction-{SCHEMA_VERSION}.schema.json"


def test_the_published_schema_is_that_of_the_code():
    """Where it is not: raise SCHEMA_VERSION if a reader has to know, and write the file anew.

    python -c "import json, radllm_backend.models.prediction as p; print(json.dumps(p.prediction_schema(), indent=1))"
    """
    assert json.loads(PUBLISHED.read_text(encoding="utf-8")) == prediction_schema()


def test_it_names_every_field_and_its_version():
    schema = prediction_schema()
    assert schema["properties"]["schema_version"]["const"] == SCHEMA_VERSION
    assert schema["additionalProperties"] is False
    unexplained = [name for name in schema["$defs"] if not schema["$defs"][name].get("description")]
    assert unexplained == []
    assert not re.search(r"/(home|root|work)/", json.dumps(schema))


@pytest.mark.parametrize(
    ("probability", "band", "call"),
    [
        (0.49, None, "likely benign"),
        (0.5, None, "likely malignant"),
        (0.29, (0.3, 0.6), "likely benign"),
        (0.3, (0.3, 0.6), "uncertain"),
        (0.6, (0.3, 0.6), "uncertain"),
        (0.61, (0.3, 0.6), "likely malignant"),
        (0.55, (0.1, 0.2), "likely malignant"),
    ],
)
def test_the_band_is_uncertain_and_the_threshold_divides_the_rest(probability, band, call):
    edges = Band(low=band[0], high=band[1], confidence=0.8) if band else None
    assert call_word(probability, 0.5, edges) == call


def test_predictions_keep_to_it(tiny_model, tiny_base, phantom_table, fresh_cache):
    pytest.importorskip("torch")
    validator = pytest.importorskip("jsonschema_rs").Draft202012Validator(prediction_schema())
    from radllm_backend import Model
    from radllm_backend.features.table import read_table

    model, rows = Model.load(tiny_model, tiny_base), read_table(phantom_table).rows()
    for prediction in (model.predict(rows[0]), *model.predict_many(rows[1:3], explain=False)):
        content = json.loads(prediction.model_dump_json())
        assert validator.is_valid(content)
        assert not validator.is_valid({**content, "probability": 1.5})
        assert not validator.is_valid({**content, "patient": "somebody"})
