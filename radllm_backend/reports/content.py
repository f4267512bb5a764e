"""What the report of a prediction says, in words and numbers: the page and the PDF lay the same out."""

from __future__ import annotations

from dataclasses import dataclass
from datetime import UTC, datetime

from radllm_backend.features.names import is_canonical
from radllm_backend.features.wording import findings
from radllm_backend.models.base_in_words import base_in_words, layers_in_words
from radllm_backend.models.bundle import ModelCard
from radllm_backend.models.cautions import rules
from radllm_backend.models.prediction import Counterfactual, Prediction, percent
from radllm_backend.records import Estimate, Extraction, KeyImage
from radllm_backend.reports.geometry import FeatureRow, rows

MOST_ROWS = 12
"""Features shown; more would push the report beyond two printed pages."""
CALIBRATION = "Probabilities of the training lesions, each judged by a model and a calibration without its patient"

STRIP_KEY = (
    "The line is the middle 90% and the box the middle half of the values of a class, with their median. The upright "
    "line is this lesion; an arrowhead says that it lies farther out."
)


@dataclass(frozen=True)
class ProvenanceEntry:
    """A line of the provenance table."""

    part: str
    text: str
    sha256: str | None = None


@dataclass(frozen=True)
class Content:
    """All that a report says, in its order; what is not known is empty."""

    prediction: Prediction
    picture: KeyImage | None
    card: ModelCard | None
    made: datetime
    accuracy: str
    stability: str
    rules: list[str]
    """Of the cautions."""
    explained: bool
    effects: str
    rows: list[FeatureRow]
    left_out: str
    findings: list[str]
    alternatives: list[str]
    typicality: str
    distances: str
    """What the distances of the neighbours mean."""
    population: str
    performance: list[tuple[str, str]]
    """A model and its AUC with the interval: the model itself, then those it was compared with."""
    calibration: str
    """Of a figure of the calibration curve."""
    provenance: list[ProvenanceEntry]

    @property
    def has_strips(self) -> bool:
        """Whether the model knows where the values of either class lie."""
        return any(row.strip for row in self.rows)


def content(
    prediction: Prediction, picture: KeyImage | None = None, card: ModelCard | None = None, *, made: datetime
) -> Content:
    """Put into words what is known of a prediction, once for the page and the PDF.

    Args:
        picture: of its lesion; without it the report has none.
        card: of its model; without it the report has nothing of the training lesions.
        made: when; the report holds no other time.
    """
    shares = prediction.strongest()
    is_explained = any(share.effect is not None for share in shares)
    return Content(
        prediction=prediction,
        picture=picture,
        card=card,
        made=made,
        accuracy=_accuracy(prediction),
        stability=_stability(prediction),
        rules=_rules(prediction, card) if card else [],
        explained=is_explained,
        effects=_effects(prediction, is_explained),
        rows=rows(shares[:MOST_ROWS], card.features if card else []),
        left_out=_left_out(len(shares[MOST_ROWS:]), is_explained),
        findings=_findings(prediction),
        alternatives=[_alternative(prediction, other) for other in prediction.counterfactuals],
        typicality=_typicality(prediction),
        distances="By what the model makes of the features; 1 is the usual distance of two neighbours in training.",
        population=_population(card) if card else "",
        performance=[(row.model, _interval(row.auc, *row.auc_interval)) for row in card.performance] if card else [],
        calibration=_calibration(card) if card else "",
        provenance=_provenance(prediction, card, made),
    )


def _accuracy(prediction: Prediction) -> str:
    model = prediction.model
    if model.auc is None:
        return "This model was not cross-validated: how well it does on new lesions is not known."
    interval = model.auc_interval
    words = f" (95% interval {interval[0]:.2f} to {interval[1]:.2f})" if interval else ""
    return (
        "In cross-validation, on lesions that it was not trained on, this model reached an AUC of "
        f"{model.auc:.2f}{words}."
    )


def _stability(prediction: Prediction) -> str:
    stability = prediction.stability
    if stability is None:
        return ""
    if len(stability.calls) == 1:
        call = f"the call stays {stability.calls[0]}"
    else:
        call = f"the call changes: {_listed(list(stability.calls), 'or')}"
    reach = f"{percent(stability.low)} to {percent(stability.high)}"
    return f"With {len(stability.variants)} slightly different outlines the probability is {reach}, and {call}."


def _rules(prediction: Prediction, card: ModelCard) -> list[str]:
    """Of the cautions shown, each rule once."""
    shown = {caution.code for caution in prediction.cautions}
    return [rule for codes, rule in rules(card) if shown & set(codes.split(", "))]


def _effects(prediction: Prediction, is_explained: bool) -> str:
    sides = "A bar to the right speaks for malignant, to the left for benign."
    if prediction.additive:
        error = prediction.additive.error
        how_well = f"; 95% of them lie within {error:.2g} of their exact values" if error else "; they are exact"
        return (
            "Effect: the feature's Shapley share of the difference between this lesion's log-odds of malignancy and "
            "those of a lesion with every feature at the training mean and no finding given (probability "
            f"{percent(prediction.additive.baseline_probability)}). The effects add up to that difference{how_well}. "
            f"{sides}"
        )
    if is_explained:
        return (
            "Effect: change of the log-odds of malignancy against the same lesion with this one feature at the "
            f"training mean, or without this finding. {sides} Features act together, so the effects do not add up."
        )
    return "The effect of each feature was not computed for this prediction."


def _left_out(count: int, is_explained: bool) -> str:
    if not count:
        return ""
    what = "feature" if count == 1 else "features"
    return f"{count} more {what}{' that moved it less' if is_explained else ''}: see prediction.json."


def _findings(prediction: Prediction) -> list[str]:
    """In a radiologist's words; a name of somebody's own table has none."""
    found = {row.feature: row.training_percentile for row in prediction.features if is_canonical(row.feature)}
    return [clause[0].upper() + clause[1:] for clause in findings(found)]


def _alternative(prediction: Prediction, other: Counterfactual) -> str:
    if other.value is None or other.call is None or other.probability is None:
        is_feature = any(row.feature == other.feature for row in prediction.features)
        what = "a value at the other end of the training lesions" if is_feature else "the commonest other term"
        return f"{other.name}: {what} would not change the call, all else the same."
    values: dict[str, float | str] = {row.feature: row.value for row in prediction.features}
    values |= {row.descriptor: row.value for row in prediction.descriptors}
    # Rare, but two numbers that look the same would make no sense.
    digits = 4 if _in_words(other.value, 3) != _in_words(values[other.feature], 3) else 8
    new, old = _in_words(other.value, digits), _in_words(values[other.feature], digits)
    return (
        f"{other.name}: with {new} instead of {old}, all else the same, the call would be {other.call} "
        f"({percent(other.probability)})."
    )


def _in_words(value: float | str, digits: int) -> str:
    return f"“{value}”" if isinstance(value, str) else significant(value, digits)


def _typicality(prediction: Prediction) -> str:
    typicality = prediction.typicality
    if typicality is None:
        return ""
    nearer = f"{typicality.percentile:.0f}% of the training lesions lie nearer to their middle than this one"
    how = f"Mahalanobis distance {typicality.distance:.2f}"
    if typicality.percentile >= 95:
        return f"All features together this is an unusual lesion: {nearer} ({how})."
    return f"All features together {nearer} ({how})."


def _population(card: ModelCard) -> str:
    """Who the figures are about."""
    training = card.training
    what = "Trained and cross-validated on" if card.performance else "Trained on"
    return (
        f"{what} {training.lesions} lesions ({training.malignant} malignant, {training.lesions - training.malignant} "
        f"benign) of {training.patients} patients. {training.description}".strip()
    )


def _calibration(card: ModelCard) -> str:
    check = card.calibration_check
    if check is None:
        return ""
    return (
        f"{CALIBRATION}. Expected calibration error {_estimate(check.ece_after)}. The dashed line is this lesion’s "
        "probability."
    )


def _estimate(figure: Estimate) -> str:
    return _interval(figure.value, figure.low, figure.high)


def _interval(value: float, low: float, high: float) -> str:
    return f"{value:.3f} ({low:.3f} to {high:.3f})"


def _provenance(prediction: Prediction, card: ModelCard | None, made: datetime) -> list[ProvenanceEntry]:
    model = prediction.model
    sources = [ProvenanceEntry("Model", model.name, model.sha256)]
    if card:
        sources += [
            ProvenanceEntry(f"Its {_part(name)}", name, card.files[name]) for name in card.parts() if name in card.files
        ]
    base = base_in_words(model.base_model, layers_in_words(card.layers) if card else "")
    sources.append(ProvenanceEntry("Base model", base, model.base_sha256))
    if card:
        seed = card.training.options.get("seed")
        random = "" if seed is None else f"random seed {seed}, "
        sources.append(
            ProvenanceEntry("Training table", f"{random}{card.training.lesions} lesions", card.training.table_sha256)
        )
    sources.append(ProvenanceEntry("Model's score", f"{signed(prediction.logit)} (log-odds before calibration)"))
    if prediction.extraction:
        sources += _extraction_sources(prediction.extraction)
    elif prediction.features:
        sources.append(ProvenanceEntry("Features", "from a table that does not say how they were extracted"))
    sources.append(ProvenanceEntry("Prediction by", _versions(prediction.versions)))
    sources.append(ProvenanceEntry("Report made", f"{made.astimezone(UTC):%Y-%m-%d %H:%M:%S} UTC"))
    return sources


def _part(file: str) -> str:
    """What a file of a bundle is called."""
    return "adapter" if file.startswith("adapter") else "head"


def _extraction_sources(extraction: Extraction) -> list[ProvenanceEntry]:
    geometry = extraction.geometry
    unit = "pixels" if len(geometry.size) == 2 else "voxels"
    size = f"{_times(geometry.size)} {unit}"
    spacing = f"of {_times(geometry.spacing)} mm" if geometry.spacing_known else "of unknown spacing"
    dimension = len(geometry.size)
    corner, extent = geometry.bounding_box[:dimension], geometry.bounding_box[dimension:]
    border = "reaches the edge of the image" if geometry.touches_border else "clear of the edge of the image"
    return [
        ProvenanceEntry(
            "Image", f"{extraction.modality or 'modality unknown'}, {size} {spacing}", extraction.image_sha256
        ),
        ProvenanceEntry(
            "Mask",
            f"{geometry.voxels:,} {unit} in a box of {_times(extent)} at {corner}, {border}",
            extraction.mask_sha256,
        ),
        ProvenanceEntry("Extraction settings", extraction.preset, extraction.settings_sha256),
        ProvenanceEntry("Features by", _versions(extraction.versions)),
    ]


def _versions(versions: dict[str, str]) -> str:
    return ", ".join(f"{name} {version}" for name, version in sorted(versions.items()))


def _times(numbers: tuple[float, ...]) -> str:
    return " × ".join(significant(number) for number in numbers)


def _listed(parts: list[str], word: str) -> str:
    """'a, b or c'."""
    return f" {word} ".join([", ".join(parts[:-1]), parts[-1]]) if len(parts) > 1 else parts[0]


def significant(number: float, digits: int = 4) -> str:
    """Four significant digits, with a true minus sign."""
    if number == int(number) and abs(number) < 1e6:
        return f"{number:.0f}".replace("-", "−")
    return f"{number:.{digits}g}".replace("-", "−")


def signed(number: float) -> str:
    """Two decimals and a sign, none for what rounds to zero."""
    if abs(number) < 0.005:
        return "0.00"
    return f"{number:{'+.2f' if abs(number) < 1e4 else '+.3g'}}".replace("-", "−")
