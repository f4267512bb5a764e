"""What a model says about one lesion, with its reasons: the content of ``prediction.json``."""

from __future__ import annotations

from typing import Literal

from pydantic import Field

from radllm_backend.features import SHA256, Extraction, Record

RESEARCH_USE_ONLY = "For research use only. Not for diagnosis."
CallWord = Literal["likely benign", "likely malignant"]


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


class Prediction(Record):
    """The calibrated probability of malignancy of one lesion, with everything needed to understand and repeat it."""

    schema_version: Literal[1] = 1
    probability: float = Field(ge=0, le=1)
    call: CallWord
    threshold: float = Field(ge=0, le=1)
    logit: float
    """The model's log-odds before calibration."""
    features: list[FeatureShare]
    """In the order of the prompt."""
    cautions: list[Caution]
    prompt: str
    model: ModelIdentity
    extraction: Extraction | None
    versions: dict[str, str]
    """Versions of the packages that computed the probability."""
    notice: str = RESEARCH_USE_ONLY

    def strongest(self) -> list[FeatureShare]:
        """The features, the one that moved the prediction most first."""
        return sorted(self.features, key=lambda share: -abs(share.effect or 0))


def percent(probability: float) -> str:
    """A probability for people: one decimal; never a certainty that the model does not claim."""
    if 0 < probability < 0.0005:
        return "<0.1%"
    if 0.9995 <= probability < 1:
        return ">99.9%"
    return f"{probability:.1%}"
