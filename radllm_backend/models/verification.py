"""Whether a prediction comes out again from the image, the mask and the model it was made with."""

from __future__ import annotations

import math
from collections.abc import Iterator
from dataclasses import dataclass
from itertools import chain, takewhile
from pathlib import Path
from typing import Any

from pydantic import ValidationError

from radllm_backend.errors import RadllmError
from radllm_backend.features.extraction import extract
from radllm_backend.files import read_json
from radllm_backend.imaging.lesion import Lesion
from radllm_backend.models.conformal import DEFAULT_CONFIDENCE
from radllm_backend.models.model import Model
from radllm_backend.models.prediction import SCHEMA_VERSION, Prediction
from radllm_backend.models.shipped import shipped_models
from radllm_backend.records import Extraction, Geometry

TOLERANCE = 1e-6
"""Of scores and probabilities, and of feature values relative to the value: as far as processors and versions of the
packages may differ without anybody's doing."""

_SHOWN = 12  # of a hash's 64 digits
_EXCERPT = 40  # characters of a prompt


@dataclass(frozen=True)
class Difference:
    """One thing that is not as the prediction records it."""

    part: str
    """What differs: ``the mask``, ``the feature original_shape2D_Sphericity``."""
    recorded: str
    repeated: str
    advice: str = ""
    """What to do about it."""

    def __str__(self) -> str:
        advice = f": {self.advice}" if self.advice else ""
        return f"{self.part} (recorded {self.recorded}, now {self.repeated}){advice}"


@dataclass(frozen=True)
class Verification:
    """What came of repeating a prediction."""

    first: Difference | None
    """The first difference; None where the prediction came out again."""
    versions: list[Difference]
    """Packages of another version: no difference of its own where every number is the same."""


def read_prediction(path: Path) -> Prediction:
    """The prediction in a ``prediction.json``.

    Raises:
        RadllmError: no JSON, no prediction, one of another schema version, or a malformed one.
    """
    content = read_json(path)
    if not {"schema_version", "probability", "prompt"} <= content.keys():
        raise RadllmError(f"{path.name} holds no prediction: give the prediction.json that radllm classify wrote.")
    if content["schema_version"] != SCHEMA_VERSION:
        raise RadllmError(
            f"{path.name} has the schema version {str(content['schema_version'])[:20]} and this radllm repeats version "
            f"{SCHEMA_VERSION}: use the radllm that wrote it, or classify the lesion anew."
        )
    try:
        return Prediction.model_validate(content)
    except ValidationError as error:
        where = ".".join(str(part) for part in error.errors()[0]["loc"]) or "as a whole"
        raise RadllmError(f"{path.name} is malformed ({where[:80]}): get it anew from where it came from.") from error


def model_of(recorded: Prediction) -> str:
    """The shipped model that made a prediction; RadllmError where it was another."""
    name = recorded.model.name
    if name not in shipped_models():
        raise RadllmError(
            f"The prediction was made with the model {name[:64]}, which is not a shipped one: give its folder "
            "with --model."
        )
    return name


def repeat(recorded: Prediction, lesion: Lesion, model: Model) -> Verification:
    """Repeat a prediction, and say what is the first thing to differ from its record.

    In this order: image, mask, pixel spacing, modality, extraction settings, model, base model, feature values,
    package versions (only where a number after them differs), prompt, score, probability, threshold and uncertain
    band, call, cautions. Descriptors and the band's confidence are taken from the record. The reasons (effects,
    counterfactuals, neighbours, stability) are not computed again.

    Args:
        model: what to repeat it with. A bundle of which a file was changed is refused when it is read.

    Raises:
        RadllmError: a prediction without an image, from a table or from descriptors alone; the base model is not there
            or is another one; or the lesion cannot be measured.
    """
    if recorded.extraction is None:
        raise RadllmError(
            "The prediction was made from a table or from descriptors alone, so that there is no image to repeat it "
            "from: only a prediction of an image and a mask can be verified."
        )
    if first := next(_of_inputs(recorded, recorded.extraction, lesion, model), None):
        return Verification(first, [])
    repeated = _repeat(recorded, lesion, model)
    versions = list(_of_versions(recorded, repeated))
    numbers = list(_of_numbers(recorded, repeated))
    first = next(chain(_of_values(recorded, repeated), versions if numbers else [], numbers), None)
    return Verification(first, versions)


def _repeat(recorded: Prediction, lesion: Lesion, model: Model) -> Prediction:
    given = {share.descriptor: share.value for share in recorded.descriptors if share.value}
    features = extract(lesion, model.settings).model_copy(update={"descriptors": given})
    confidence = recorded.band.confidence if recorded.band else DEFAULT_CONFIDENCE
    return model.predict(features, explain=False, confidence=confidence)


def _of_inputs(recorded: Prediction, extraction: Extraction, lesion: Lesion, model: Model) -> Iterator[Difference]:
    """What goes into a prediction; nothing is computed of it yet."""
    own, base = model.settings, model.card.base
    pairs = [
        ("the image", extraction.image_sha256, lesion.image_sha256, "give the image it was made from"),
        ("the mask", extraction.mask_sha256, lesion.mask_sha256, "give the mask and label it was made from"),
        ("the pixel spacing", _spacing(extraction.geometry), _spacing(lesion.geometry), "set it with --spacing"),
        ("the modality", extraction.modality or "unknown", lesion.modality or "unknown", "set it with --modality"),
        ("the extraction settings", extraction.settings_sha256, own.sha256, "the model has others than it was made by"),
        ("the model", recorded.model.sha256, model.sha256, "its model.json is another: give the one it was made by"),
        ("the base model", recorded.model.base_sha256, base.sha256, "give the one it was made by"),
    ]
    for part, then, now, advice in pairs:
        if then != now:
            yield Difference(part, _short(then), _short(now), advice)


def _short(text: str) -> str:
    """A hash by its beginning; other texts as they are."""
    return text[:_SHOWN] if len(text) == 64 else text


def _spacing(geometry: Geometry) -> str:
    return " x ".join(f"{size!r}" for size in geometry.spacing) + " mm" if geometry.spacing_known else "unknown"


def _of_values(recorded: Prediction, repeated: Prediction) -> Iterator[Difference]:
    then, now = ({share.feature: share.value for share in one.features} for one in (recorded, repeated))
    for name in _names(then, now):
        value, again = then.get(name), now.get(name)
        if value is None or again is None or not math.isclose(value, again, rel_tol=TOLERANCE):
            texts = ("none" if one is None else repr(one) for one in (value, again))
            yield Difference(f"the feature {name[:80]}", *texts)


def _names(then: dict[str, Any], now: dict[str, Any]) -> list[str]:
    """In today's order; what is only in the record comes last."""
    return [*now, *(name for name in then if name not in now)]


def _of_versions(recorded: Prediction, repeated: Prediction) -> Iterator[Difference]:
    then, now = (
        {**(one.extraction.versions if one.extraction else {}), **one.versions} for one in (recorded, repeated)
    )
    for package in _names(then, now):
        pair = then.get(package, "none"), now.get(package, "none")
        if pair[0] != pair[1]:
            yield Difference(f"the version of {package}", *pair, "install the recorded versions")


def _of_numbers(recorded: Prediction, repeated: Prediction) -> Iterator[Difference]:
    """What the model makes of the values, from its prompt to its cautions."""
    if recorded.prompt != repeated.prompt:
        alike = takewhile(lambda pair: pair[0] == pair[1], zip(recorded.prompt, repeated.prompt, strict=False))
        start = max(0, sum(1 for _ in alike) - _EXCERPT // 2)
        excerpts = (f"'...{one.prompt[start : start + _EXCERPT]}...'" for one in (recorded, repeated))
        yield Difference("the prompt", *excerpts)
    for part, score, again in (
        ("the score", recorded.logit, repeated.logit),
        ("the probability", recorded.probability, repeated.probability),
    ):
        if abs(score - again) > TOLERANCE:
            yield Difference(part, repr(score), repr(again))
    for part, then, now in (
        ("the threshold", repr(recorded.threshold), repr(repeated.threshold)),
        ("the uncertain band", _band(recorded), _band(repeated)),
        ("the call", recorded.call, repeated.call),
        ("the cautions", _cautions(recorded), _cautions(repeated)),
    ):
        if then != now:
            yield Difference(part, then, now)


def _band(prediction: Prediction) -> str:
    return f"{prediction.band.low!r} to {prediction.band.high!r}" if prediction.band else "none"


def _cautions(prediction: Prediction) -> str:
    """By their codes: the words may change between versions."""
    return ", ".join(caution.code for caution in prediction.cautions) or "none"
