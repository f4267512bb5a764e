"""Many predictions as one table."""

from __future__ import annotations

from collections.abc import Sequence

from radllm_backend.models.prediction import Band, Prediction

HEADING = [
    "lesion",
    "probability",
    "call",
    "threshold",
    "uncertain_from",
    "uncertain_to",
    "confidence",
    "logit",
    "cautions",
    "model",
    "model_sha256",
]


def prediction_rows(lesions: Sequence[str], predictions: Sequence[Prediction]) -> list[list[str]]:
    """A heading and one row a lesion; the cautions are their codes, separated by semicolons.

    The edges of the uncertain band and its confidence are empty where the model has none.
    """
    rows = [
        [
            lesion,
            repr(prediction.probability),
            prediction.call,
            repr(prediction.threshold),
            *_band_cells(prediction.band),
            repr(prediction.logit),
            ";".join(dict.fromkeys(caution.code for caution in prediction.cautions)),
            prediction.model.name,
            prediction.model.sha256,
        ]
        for lesion, prediction in zip(lesions, predictions, strict=True)
    ]
    return [HEADING, *rows]


def _band_cells(band: Band | None) -> list[str]:
    return [repr(band.low), repr(band.high), repr(band.confidence)] if band else ["", "", ""]
