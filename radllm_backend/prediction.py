"""What a model says about one lesion, with its reasons: the content of ``prediction.json``."""

from __future__ import annotations

from typing import Literal, Self

from pydantic import Field, model_validator

from radllm_backend.features import SHA256, Extraction, Record

RESEARCH_USE_ONLY = "For research use only. Not for diagnosis."
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
    """Change of the calibrated log-odds of malignancy against the same lesion with this feature at the training mean;
    None where it was not asked for."""


class DescriptorShare(Record):
    """One of the radiologist's descriptors in the prompt and how it moved this prediction."""

    descriptor: str
    """``mass_shape``."""
    name: str
    """The name in the prompt, ``Mass Shape``."""
    value: str
    """Its canonical terms; empty where it was not given."""
    effect: float | None = None
    """Change of the calibrated log-odds against the same lesion without this descriptor; None: not asked for."""


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
    """The effects are Shapley values: with the log-odds of the baseline they add up to the lesion's."""

    baseline: float
    """Calibrated log-odds with every feature at the training mean and no descriptor given."""
    baseline_probability: float = Field(ge=0, le=1)
    error: float
    """Largest standard error of an effect; 0 where every coalition of features was scored."""


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

    schema_version: Literal[2] = 2
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
    """None where each effect is of one feature put back alone: those do not add up."""
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


def percent(probability: float) -> str:
    """A probability for people: one decimal; never a certainty that the model does not claim."""
    if 0 < probability < 0.0005:
        return "<0.1%"
    if 0.9995 <= probability < 1:
        return ">99.9%"
    return f"{probability:.1%}"
