"""What a model says about one lesion, with its reasons: the content of ``prediction.json``."""

from __future__ import annotations

from typing import Any, Final, Literal, Self

from pydantic import Field, model_validator

from radllm_backend.records import SHA256, Extraction, Record

RESEARCH_USE_ONLY = "For research use only. Not for diagnosis."
SCHEMA_VERSION: Final = 3
"""Of ``prediction.json``: raised with every change that a reader has to know of."""
CallWord = Literal["likely benign", "uncertain", "likely malignant"]


class FeatureShare(Record):
    """One feature of the prompt and how it moved this prediction."""

    feature: str
    """PyRadiomics' name, ``original_shape2D_Sphericity``."""
    name: str
    """The name in the prompt, ``Sphericity``."""
    value: float
    standardised: float
    """(value - training mean) / training standard deviation."""
    training_percentile: float = Field(ge=0, le=100)
    """Percentage of the training lesions with a smaller value (ties count half)."""
    effect: float | None = None
    """Its Shapley share of the calibrated log-odds of malignancy (`Additive`); None where it was not asked for."""


class DescriptorShare(Record):
    """One of the radiologist's descriptors in the prompt and how it moved this prediction."""

    descriptor: str
    """``mass_shape``."""
    name: str
    """The name in the prompt, ``Mass Shape``."""
    value: str
    """Its canonical terms; empty where it was not given."""
    effect: float | None = None
    """Its Shapley share of the calibrated log-odds; 0 where it was not given, None where it was not asked for."""


class Caution(Record):
    """A reason to trust this prediction less. ``code`` is stable, ``text`` is one sentence."""

    code: str
    text: str


class ModelIdentity(Record):
    """Which model spoke, and how well it did on lesions it had not seen."""

    name: str
    sha256: SHA256
    base_model: str
    base_sha256: SHA256
    modality: str
    trained_on: str
    """One sentence: how many lesions of what."""
    auc: float | None = None
    """Out-of-fold area under the ROC curve; None where the model was not cross-validated."""
    auc_interval: tuple[float, float] | None = None
    """Its 95% interval."""


class Additive(Record):
    """What the effects are shares of: with the log-odds of the baseline they add up to the lesion's."""

    baseline: float
    """Calibrated log-odds with every feature at the training mean and no descriptor given."""
    baseline_probability: float = Field(ge=0, le=1)
    error: float = Field(ge=0)
    """95% of the effects lie within this of the exact ones; 0 where every coalition of features was scored."""


class Counterfactual(Record):
    """What one of the features that moved a prediction most would have to be for another call, all else the same."""

    feature: str
    """PyRadiomics' name, or the descriptor's."""
    name: str
    """The name in the prompt."""
    value: float | str | None = None
    """At the other end of the training lesions (their 10th or 90th percentile, whichever is farther from the lesion),
    or a descriptor's commonest other term; None where the call stays the same with it."""
    probability: float | None = Field(None, ge=0, le=1)
    """With that value."""
    call: CallWord | None = None


class Neighbour(Record):
    """A training lesion that the model reads much like this one."""

    lesion: int = Field(ge=1)
    """Its number among the training lesions: their order in ``out_of_fold.csv`` and nothing else about them."""
    label: Literal["benign", "malignant"]
    distance: float = Field(ge=0)
    """Between the enhanced features; 1 is the median distance of a training lesion from its nearest neighbour."""


class Typicality(Record):
    """How far a lesion lies from the middle of the training lesions, all features together."""

    distance: float = Field(ge=0)
    """Mahalanobis distance of the standardised features of the prompt, in standard deviations."""
    percentile: float = Field(ge=0, le=100)
    """Percentage of the training lesions that lie nearer to their middle."""


class MaskVariant(Record):
    """The same lesion with a slightly other outline."""

    name: str
    """What was done to the mask: ``one pixel smaller``."""
    probability: float | None = Field(None, ge=0, le=1)
    """None where nothing is left of the lesion, or its features are undefined."""


class Stability(Record):
    """How far the probability moves when the outline does."""

    low: float = Field(ge=0, le=1)
    high: float = Field(ge=0, le=1)
    """Lowest and highest probability, that of the mask as it was drawn included."""
    calls: list[CallWord]
    """The different calls among them, the commonest first."""
    variants: list[MaskVariant]


class Band(Record):
    """The calibrated probabilities, edges included, at which a model calls a lesion uncertain."""

    low: float = Field(ge=0, le=1)
    high: float = Field(ge=0, le=1)
    confidence: float = Field(gt=0, lt=1)
    """At least this share of the benign lesions is not called likely malignant, and of the malignant not likely benign.
    """

    @model_validator(mode="after")
    def _is_in_order(self) -> Self:
        if self.low > self.high:
            raise ValueError("the low edge of a band lies above its high edge")
        return self

    def holds(self, probability: float) -> bool:
        """Whether a lesion with this probability is called uncertain."""
        return self.low <= probability <= self.high

    def around(self, threshold: float) -> Band:
        """The band, stretched to the threshold where that lies outside.

        A lesion between the two is one that threshold and band call differently: that is uncertain as well, and a
        wider band only makes wrong calls rarer.
        """
        return Band(low=min(self.low, threshold), high=max(self.high, threshold), confidence=self.confidence)

    def __str__(self) -> str:
        return f"{percent(self.low)} to {percent(self.high)}"


class Prediction(Record):
    """The calibrated probability of malignancy of one lesion, with everything needed to understand and repeat it."""

    schema_version: Literal[3] = SCHEMA_VERSION
    probability: float = Field(ge=0, le=1)
    call: CallWord
    threshold: float = Field(ge=0, le=1)
    band: Band | None = None
    """Where the model calls a lesion uncertain; None where it has no conformal reference: then it never does."""
    logit: float
    """The model's log-odds before calibration."""
    features: list[FeatureShare]
    """In the order of the prompt."""
    descriptors: list[DescriptorShare] = Field([])
    """In the order of the prompt, after the features."""
    additive: Additive | None = None
    """None where the effects were not asked for."""
    counterfactuals: list[Counterfactual] = Field([])
    """Of the two that moved the prediction most, the stronger one first; empty where they were not asked for."""
    neighbours: list[Neighbour] = Field([])
    """The nearest training lesions, the nearest first; empty where not asked for, or the model keeps none."""
    typicality: Typicality | None = None
    """None for a model without features, or of an older radllm."""
    stability: Stability | None = None
    """None where it was not asked for."""
    cautions: list[Caution]
    prompt: str
    model: ModelIdentity
    extraction: Extraction | None
    versions: dict[str, str]
    """Versions of the packages that computed the probability."""
    notice: str = RESEARCH_USE_ONLY

    def rule(self) -> str:
        """From which probability to which call, in words."""
        if self.band is None:
            return f"The model calls a lesion likely malignant from {percent(self.threshold)} on."
        confidence, wrong = (f"{100 * share:.4g}%" for share in (self.band.confidence, 1 - self.band.confidence))
        return (
            f"The model calls a lesion uncertain from {self.band}, at a confidence of {confidence}: among lesions like "
            f"its training lesions, at most {wrong} of the malignant ones are expected below this band, and at most "
            f"{wrong} of the benign ones above it."
        )

    def strongest(self) -> list[FeatureShare | DescriptorShare]:
        """Features and given descriptors, the one that moved the prediction most first."""
        given = [share for share in self.descriptors if share.value]
        return sorted([*self.features, *given], key=lambda share: -abs(share.effect or 0))


def call_word(probability: float, threshold: float, band: Band | None) -> CallWord:
    """What a lesion with this probability is called: what the band holds is uncertain, the threshold divides the rest.

    Args:
        band: None for a model that never calls a lesion uncertain.
    """
    if band is not None and band.holds(probability):
        return "uncertain"
    return "likely malignant" if probability >= threshold else "likely benign"


def percent(probability: float) -> str:
    """A probability for people: one decimal; never a certainty that the model does not claim."""
    if 0 < probability < 0.0005:
        return "<0.1%"
    if 0.9995 <= probability < 1:
        return ">99.9%"
    return f"{probability:.1%}"


def prediction_schema() -> dict[str, Any]:
    """The JSON Schema (draft 2020-12) of ``prediction.json``, as it is published in ``Resources/Schemas``.

    Whoever changes what it allows raises `Prediction.schema_version`.
    """
    return {
        "$schema": "https://json-schema.org/draft/2020-12/schema",
        "$id": f"urn:radllm:prediction:{SCHEMA_VERSION}",
        **Prediction.model_json_schema(mode="serialization"),
    }
