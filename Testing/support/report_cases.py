"""Predictions with and without everything that a report can show, for the tests of reports."""

from __future__ import annotations

from datetime import UTC, datetime
from typing import Any

import numpy as np
import SimpleITK as sitk
from bs4 import BeautifulSoup, Tag

from radllm_backend.features.names import display_name
from radllm_backend.imaging.lesion import Lesion
from radllm_backend.models.bundle import (
    AdapterReference,
    BaseReference,
    CalibrationCheck,
    FeatureSummary,
    ModelCard,
    Performance,
    TrainingSummary,
)
from radllm_backend.models.calibration import Calibration
from radllm_backend.models.prediction import (
    Additive,
    Band,
    Caution,
    Counterfactual,
    FeatureShare,
    MaskVariant,
    ModelIdentity,
    Neighbour,
    Prediction,
    Stability,
    Typicality,
)
from radllm_backend.models.reference import ClassQuantiles
from radllm_backend.records import CalibrationBin, Estimate, Extraction, Features, Geometry
from radllm_backend.reports.content import Content, content
from radllm_backend.reports.html import report_html
from radllm_backend.reports.key_image import key_image

MADE = datetime(2026, 11, 25, 17, 30, tzinfo=UTC)
HEADINGS = [
    "Result",
    "Cautions",
    "What moved this prediction",
    "In words",
    "What would change the call",
    "Nearest training lesions",
    "How well the model does",
    "What the model read",
    "Provenance",
]
"""Of the parts of a report, in their order."""
HASHES = {name: f"{number:x}" * 64 for number, name in enumerate(("model", "base", "settings", "image", "mask"), 1)}
EXTRACTION = Extraction(
    preset="breast-ultrasound",
    settings_sha256=HASHES["settings"],
    versions={"pyradiomics": "3.1.4"},
    modality="US",
    geometry=Geometry(
        size=(320, 400),
        spacing=(0.08, 0.08),
        spacing_known=True,
        bounding_box=(131, 91, 97, 120),
        voxels=7674,
        touches_border=False,
    ),
    image_sha256=HASHES["image"],
    mask_sha256=HASHES["mask"],
)
MODEL = ModelIdentity(
    name="test-model",
    sha256=HASHES["model"],
    base_model="TestLM",
    base_sha256=HASHES["base"],
    modality="US",
    trained_on="40 lesions (20 malignant) of 39 patients.",
    auc=0.812,
    auc_interval=(0.704, 0.893),
)


def share(name: str, effect: float | None, **changes: Any) -> FeatureShare:
    values = {"value": 0.5, "standardised": -1.25, "training_percentile": 12.0, **changes}
    return FeatureShare(feature=f"original_{name}", name=name, effect=effect, **values)


PREDICTION = Prediction(
    probability=0.734,
    call="likely malignant",
    threshold=0.42,
    logit=1.2,
    features=[share("Elongation", -0.2), share("Sphericity", 1.0), share("Energy", -0.5), share("Contrast", 0.0)],
    cautions=[Caution(code="few-pixels", text="The lesion has few pixels."), Caution(code="b", text="Another thing.")],
    prompt="Classify benign or malignant.  The 'Sphericity' feature\nis measured at -1.250.",
    model=MODEL,
    extraction=EXTRACTION,
    versions={"torch": "2.13.0", "peft": "0.21.2"},
)
FEATURES = Features(values={"original_Sphericity": 0.5, "original_Energy": None}, extraction=EXTRACTION)


def prediction(**changes: Any) -> Prediction:
    """PREDICTION with changes, validated as any other."""
    return Prediction(**{**dict(PREDICTION), **changes})


# A prediction and a model card with all parts ------------------------------------------------------------------------

NAMES = (
    "original_shape2D_Sphericity",
    "original_shape2D_Elongation",
    "original_firstorder_Kurtosis",
    "original_firstorder_Skewness",
    "original_glcm_Imc1",
    "original_glrlm_RunLengthNonUniformity",
    "original_glszm_SizeZoneNonUniformity",
    "original_ngtdm_Complexity",
)


def summary(feature: str, apart: float = 1.0) -> FeatureSummary:
    """A feature whose values are 0 to 10 in the benign training lesions, and so much higher in the malignant ones."""
    shares = np.linspace(0, 10, 21)
    by_class = ClassQuantiles(benign=tuple(shares), malignant=tuple(shares + apart))
    quantiles = tuple(np.linspace(0, 10 + apart, 101))
    return FeatureSummary(feature=feature, mean=5.5, deviation=3.0, quantiles=quantiles, by_class=by_class)


CARD = ModelCard(
    name="test-model",
    modality="US",
    base=BaseReference(name="TestLM", sha256=HASHES["base"]),
    adapter=AdapterReference(rank=2, alpha=4),
    template_version=1,
    features=[summary(name) for name in NAMES],
    threshold=0.42,
    calibration=Calibration(),
    settings_name="breast-ultrasound",
    settings={},
    training=TrainingSummary(
        description="Breast ultrasound by Pawłowska et al., CC BY 4.0.",
        command="radllm train",
        table_sha256="6" * 64,
        lesions=176,
        malignant=69,
        patients=170,
        fewest_voxels=100,
        lesion_hashes=[],
        options={"seed": 7},
        epochs=3,
        versions={},
        hardware="",
    ),
    performance=[
        Performance(model="LoRA head", auc=0.812, auc_interval=(0.704, 0.893)),
        Performance(model="logistic regression, the same features", auc=0.798, auc_interval=(0.69, 0.88)),
    ],
    calibration_check=CalibrationCheck(
        ece_before=Estimate(value=0.2, low=0.1, high=0.3),
        ece_after=Estimate(value=0.088, low=0.043, high=0.138),
        brier_before=Estimate(value=0.2, low=0.1, high=0.3),
        brier_after=Estimate(value=0.15, low=0.1, high=0.2),
        curve=[
            CalibrationBin(predicted=0.1, observed=0.05, lesions=60),
            CalibrationBin(predicted=0.4, observed=0.5, lesions=60),
            CalibrationBin(predicted=0.9, observed=0.85, lesions=56),
        ],
    ),
    files={"adapter.safetensors": "7" * 64, "out_of_fold.csv": "8" * 64},
)


def _shares() -> list[FeatureShare]:
    effects = (1.0, -0.5, 0.3, -0.2, 0.12, 0.08, -0.03, 0.0)
    places = ((2.5, 3.0), (8.5, 95.0), (5.0, 40.0), (40.0, 100.0), (-30.0, 0.0), (6.0, 55.0), (5.5, 50.0), (7.0, 60.0))
    return [
        FeatureShare(
            feature=name,
            name=display_name(name),
            value=value,
            standardised=(value - 5.5) / 3,
            training_percentile=percentile,
            effect=effect,
        )
        for name, (value, percentile), effect in zip(NAMES, places, effects, strict=True)
    ]


def _full() -> Prediction:
    shares = _shares()
    return prediction(
        features=shares,
        band=Band(low=0.4, high=0.6, confidence=0.8),
        additive=Additive(baseline=-0.4, baseline_probability=0.401, error=0.034),
        counterfactuals=[
            Counterfactual(
                feature=NAMES[0], name=display_name(NAMES[0]), value=9.5, probability=0.2, call="likely benign"
            ),
            Counterfactual(feature=NAMES[1], name=display_name(NAMES[1])),
        ],
        neighbours=[
            Neighbour(lesion=93, label="benign", distance=1.0714),
            Neighbour(lesion=170, label="malignant", distance=1.5544),
        ],
        typicality=Typicality(distance=5.996, percentile=98.0),
        stability=Stability(
            low=0.551,
            high=0.779,
            calls=["likely malignant", "uncertain"],
            variants=[
                MaskVariant(name="one pixel smaller", probability=0.551),
                MaskVariant(name="one pixel larger", probability=0.779),
            ],
        ),
        cautions=[
            Caution(code="outside-range", text="Skewness is 40, outside the training lesions' range (0 to 11)."),
            Caution(code="outside-range", text="Imc1 is −30, outside the training lesions' range (0 to 11)."),
            Caution(code="touches-border", text="The lesion reaches the edge of the image, so a part may be missing."),
        ],
        prompt=" ".join(f"The '{share.name}' feature is measured at {share.standardised:.3f}." for share in shares),
    )


FULL = _full()
CROWDED = FULL.model_copy(
    update={
        "cautions": [
            *FULL.cautions,
            *(
                Caution(code="outside-range", text=f"{share.name} lies outside the range (0 to 11).")
                for share in FULL.features
            ),
        ],
        "neighbours": [Neighbour(lesion=number, label="benign", distance=number) for number in range(1, 6)],
    }
)
"""As much as eight features can give rise to."""


def box_lesion(spacing: tuple[float, float] = (0.1, 0.1), spacing_known: bool = True) -> Lesion:
    """A 40 x 20 pixel box (columns x rows) on a gradient."""
    rows, columns = np.mgrid[:120, :150]
    mask = np.zeros((120, 150), dtype=np.uint8)
    mask[50:70, 60:100] = 1
    images = [sitk.GetImageFromArray((rows + columns).astype(np.float32)), sitk.GetImageFromArray(mask)]
    for image in images:
        image.SetSpacing(spacing)
    return Lesion.from_images(*images, modality="US", spacing_known=spacing_known)


def report_of(predicted: Prediction, lesion: Lesion | None = None, card: ModelCard | None = None) -> Content:
    """What page and PDF are made of."""
    return content(predicted, key_image(lesion) if lesion else None, card, made=MADE)


def page(predicted: Prediction, lesion: Lesion | None = None, card: ModelCard | None = None) -> BeautifulSoup:
    return BeautifulSoup(report_html(report_of(predicted, lesion, card)), "html.parser")


def words(element: Tag | None) -> str:
    assert element is not None
    return " ".join(element.get_text(" ").split())


def section(soup: BeautifulSoup, name: str) -> Tag:
    found = soup.select_one(f"section[aria-labelledby={name}]")
    assert found is not None
    return found
