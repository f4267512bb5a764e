"""Rows of a batch's results, for the tests of what is made of them."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

from radllm_backend.batch.results import Results, Row, open_results, title_of
from radllm_backend.features.extraction import load_settings
from Testing.support.batch_cases import candidate
from Testing.support.report_cases import FEATURES, HASHES, prediction

SETTINGS = load_settings("breast-ultrasound")
OF_RUN = (SETTINGS.sha256, HASHES["model"])
VALUES = FEATURES.model_copy(
    update={"values": {"original_shape2D_Sphericity": 0.5, "original_firstorder_Energy": None}}
)


def row(number: int, **changes: Any) -> Row:
    """A lesion that is done."""
    chosen = candidate(number)
    found = prediction(probability=number % 100 / 100)
    words = {name: getattr(chosen, name) for name in ("kind", "modality", "series_description", "segment", "number")}
    given = {
        "key": chosen.key,
        "settings_sha256": SETTINGS.sha256,
        "model_sha256": HASHES["model"],
        "lesion": title_of(chosen),
        "series": chosen.series,
        "source": chosen.source,
        "status": "done",
        "probability": found.probability,
        "call": found.call,
        "cautions": ("few-pixels", "b"),
        "prediction": found,
        "features": VALUES,
        "seconds": 0.25,
    }
    return Row(**{**words, **given, **changes})


def failed(number: int, reason: str = "It is gone: put it back.", **changes: Any) -> Row:
    """One that is not."""
    nothing = dict.fromkeys(("probability", "call", "prediction", "features"))
    return row(number, status="failed", reason=reason, cautions=(), **{**nothing, **changes})


@contextmanager
def filled_results(folder: Path) -> Iterator[Results]:
    """Five lesions that are done, one that failed, and one of another run."""
    with open_results(folder / "results.sqlite") as results:
        results.add([row(number) for number in range(5)])
        results.add([failed(5, "It is <b>gone</b>: put it back."), row(9, settings_sha256="d" * 64)])
        yield results
