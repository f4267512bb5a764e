"""Cautions by their rules: what the card promises is what is said, and no caution comes without its rule."""

from __future__ import annotations

import re
from pathlib import Path

import pytest

from radllm_backend.models import cautions
from radllm_backend.models.bundle import DescriptorSummary, ModelCard, read_bundle
from radllm_backend.models.cautions import about_distance, about_uncertainty, find_cautions, rules
from radllm_backend.models.prediction import Band, Caution, Typicality
from radllm_backend.models.readme import model_readme
from radllm_backend.models.reference import Spread
from radllm_backend.models.shipped import shipped_models
from radllm_backend.records import Extraction, Features, Geometry, lesion_hash
from Testing.support.report_cases import CARD, EXTRACTION, HASHES, summary

pytestmark = pytest.mark.skipif("breast-us" not in shipped_models(), reason="needs the shipped models")


def card(name: str = "breast-us", **training: object) -> ModelCard:
    own = read_bundle(name).card
    return own.model_copy(update={"training": own.training.model_copy(update=training)})


def lesion(own: ModelCard, spacing: tuple[float, float] | None) -> Features:
    """One that is average in everything."""
    geometry = Geometry(
        size=(300, 200),
        spacing=spacing or (1.0, 1.0),
        spacing_known=spacing is not None,
        bounding_box=(10, 10, 80, 60),
        voxels=4000,
        touches_border=False,
    )
    settings = own.extraction_settings()
    assert settings
    extraction = Extraction(
        preset=settings.name,
        settings_sha256=settings.sha256,
        versions={},
        modality=own.modality,
        geometry=geometry,
        image_sha256="1" * 64,
        mask_sha256="2" * 64,
    )
    return Features(values={row.feature: row.mean for row in own.features}, extraction=extraction)


def codes(own: ModelCard, features: Features) -> list[str]:
    settings = own.extraction_settings()
    return [one.code for one in find_cautions(features, own, settings.sha256 if settings else None)]


@pytest.mark.parametrize(
    ("spacing", "differs"),
    [((0.1, 0.1), False), ((0.054, 0.29), False), ((0.05, 0.1), True), ((0.1, 0.31), True), (None, False)],
)
def test_a_spacing_beyond_those_of_the_training_images_is_said(spacing, differs):
    own = card(spacing=(0.08, 0.2))
    assert codes(own, lesion(own, spacing)) == (["spacing-differs"] if differs else [])
    assert codes(card(spacing=None), lesion(own, spacing)) == []


def test_every_caution_has_its_rule_in_the_card():
    source = Path(cautions.__file__).read_text(encoding="utf-8")
    given = set(re.findall(r'code="([a-z-]+)"', source))
    assert len(given) >= 12
    ruled = {code for name in shipped_models() for both, _ in rules(card(name)) for code in both.split(", ")}
    ruled |= {code for code, _ in rules(card(spacing=(0.1, 0.2)))}
    assert given - ruled <= {"spacing-unknown", "far-from-training"}  # of a model that reads lengths; of a newer one
    for name in shipped_models():
        text = model_readme(card(name))
        assert all(f"| {code} | {rule} |" in text for code, rule in rules(card(name)))


# --- each in its words ----------------------------------------------------------------------------------------------

SETTINGS = HASHES["settings"]
TEXTURES = [summary("original_firstorder_Skewness"), summary("original_glcm_Imc1")]
LENGTH = summary("original_shape2D_Perimeter")


def model(**changes: object) -> ModelCard:
    """A model of two textures, of values from 0 to 11; changes of its training go by their own names."""
    of_training = {name: changes.pop(name) for name in ("spacing", "fewest_voxels", "lesion_hashes") if name in changes}
    training = CARD.training.model_copy(update=of_training)
    return CARD.model_copy(update={"features": TEXTURES, "training": training, **changes})


def measured(values: dict[str, float | None] | None = None, **changes: object) -> Features:
    """A lesion in the middle of every feature; changes of its geometry go by their own names."""
    of_geometry = {name: changes.pop(name) for name in list(changes) if name in Geometry.model_fields}
    geometry = EXTRACTION.geometry.model_copy(update=of_geometry)
    extraction = EXTRACTION.model_copy(update={"geometry": geometry, **changes})
    given = {row.feature: row.mean for row in [*TEXTURES, LENGTH]}
    return Features(values={**given, **(values or {})}, extraction=extraction)


def said(features: Features, card: ModelCard, settings: str | None = SETTINGS) -> list[tuple[str, str]]:
    return [(one.code, one.text) for one in find_cautions(features, card, settings)]


def test_a_lesion_like_those_of_the_training_has_no_caution() -> None:
    assert said(measured(), model()) == []


@pytest.mark.parametrize(
    ("modality", "trained", "article"),
    [
        ("MG", "mammograms", "a mammogram"),
        ("US", "ultrasound images", "an ultrasound image"),
        ("CT", "CT", "a CT"),
        ("MR", "MR images", "an MR image"),
    ],
)
def test_the_modality(modality: str, trained: str, article: str) -> None:
    unknown = f"The image does not say its modality, and the model was trained on {trained} only."
    assert said(measured(modality=None), model(modality=modality)) == [("modality-unknown", unknown)]
    other = "CT" if modality != "CT" else "US"
    differs = (
        f"The model was trained on {'ultrasound images' if other == 'US' else 'CT'} and this is {article}: "
        "it is outside the model's modality and the probability means nothing."
    )
    assert said(measured(modality=modality), model(modality=other)) == [("modality-differs", differs)]
    assert said(measured(modality=modality), model(modality=modality)) == []


def test_other_settings() -> None:
    text = (
        "The features were extracted with other settings (breast-ultrasound) than the model's (own), "
        "so their values do not compare."
    )
    assert said(measured(), model(settings_name="own"), "f" * 64) == [("settings-differ", text)]
    assert said(measured(), model(), None) == []


def test_a_lesion_of_the_training() -> None:
    text = "This lesion is one of the model's training lesions: its probability says nothing about accuracy."
    own = lesion_hash(EXTRACTION)
    assert said(measured(), model(lesion_hashes=["0" * 16, own])) == [("training-lesion", text)]
    assert said(measured(), model(lesion_hashes=["0" * 16])) == []


def test_an_unknown_spacing_matters_where_a_feature_is_a_length() -> None:
    text = "The image has no pixel spacing and the model reads lengths in mm: give the spacing."
    assert said(measured(spacing_known=False), model(features=[*TEXTURES, LENGTH])) == [("spacing-unknown", text)]
    assert said(measured(spacing_known=False), model()) == []
    assert said(measured(), model(features=[*TEXTURES, LENGTH])) == []


@pytest.mark.parametrize(
    ("spacing", "differs"),
    [
        ((0.5, 3.0), False),
        ((3.0, 0.5), False),
        ((0.499, 1.0), True),
        ((1.0, 0.499), True),
        ((1.0, 3.001), True),
        ((1.0, 1.0, 9.0), False),  # the slices' own distance is no pixel's size
    ],
)
def test_a_spacing_half_as_much_again_beyond_those_of_the_training(spacing: tuple[float, ...], differs: bool) -> None:
    text = (
        f"The pixels measure {spacing[0]:.4g} × {spacing[1]:.4g} mm, and those of the training images 0.75 to 2 mm: "
        "texture does not compare."
    )
    found = said(measured(spacing=spacing), model(spacing=(0.75, 2.0)))
    assert found == ([("spacing-differs", text)] if differs else [])
    assert said(measured(spacing=spacing, spacing_known=False), model(spacing=(0.75, 2.0))) == []
    assert said(measured(spacing=spacing), model()) == []


@pytest.mark.parametrize(("voxels", "few"), [(99, True), (100, False), (101, False)])
def test_fewer_pixels_than_any_training_lesion(voxels: int, few: bool) -> None:
    text = f"The lesion has {voxels} pixels, fewer than any training lesion (100)."
    assert said(measured(voxels=voxels), model(fewest_voxels=100)) == ([("few-pixels", text)] if few else [])
    assert said(measured(voxels=voxels), model(fewest_voxels=None)) == []


def test_a_lesion_at_the_edge_of_the_image() -> None:
    text = "The lesion reaches the edge of the image, so a part may be missing."
    assert said(measured(touches_border=True), model()) == [("touches-border", text)]


def test_values_without_their_provenance() -> None:
    bare = Features(values=measured().values)
    text = "These values came without their provenance, so image, modality and extraction settings are unchecked."
    assert said(bare, model()) == [("no-provenance", text)]
    descriptors_only = model(features=[], settings=None, settings_name=None)
    assert said(bare, descriptors_only) == []


@pytest.mark.parametrize(
    ("value", "shown"), [(-0.01, "-0.01"), (11.01, "11.01"), (123456.0, "1.235e+05"), (0.0, ""), (11.0, ""), (None, "")]
)
def test_a_value_outside_those_of_the_training(value: float | None, shown: str) -> None:
    text = f"Skewness is {shown}, outside the training lesions' range (0 to 11)."
    found = said(measured({"original_firstorder_Skewness": value}), model())
    assert found == ([("outside-range", text)] if shown else [])


def test_a_value_that_is_not_there_hides_no_other() -> None:
    values = {"original_firstorder_Skewness": None, "original_glcm_Imc1": 12.0}
    assert [code for code, _ in said(measured(values), model())] == ["outside-range"]


def test_descriptors() -> None:
    counts = {"mass_shape": {"oval": 3, "irregular": 4, "round": 0}, "halo": {"": 2, "high": 3}}
    own = model(
        features=[],
        settings=None,
        settings_name=None,
        descriptors=[DescriptorSummary(descriptor=name, counts=given) for name, given in counts.items()],
    )

    def of(**descriptors: str) -> list[tuple[str, str]]:
        return said(Features(values={}, descriptors=descriptors), own)

    missing = ("descriptor-missing", "Mass Shape was not given, and every training lesion had it.")
    new = "Mass Shape is 'round', which no training lesion had: the model has not learned what it means."
    strange = "Halo is 'low', which no training lesion had: the model has not learned what it means."
    assert of(mass_shape="oval", halo="high") == of(mass_shape="oval") == []
    assert of() == [missing]
    assert of(mass_shape="round") == [("descriptor-new", new)]
    assert of(mass_shape="oval", halo="low") == [("descriptor-new", strange)]
    assert of(halo="low") == [missing, ("descriptor-new", strange)]


def test_the_gravest_comes_first() -> None:
    features = measured(
        {"original_firstorder_Skewness": 12.0},
        modality="CT",
        settings_sha256="f" * 64,
        spacing=(9.0, 9.0),
        voxels=5,
        touches_border=True,
    )
    own = model(
        features=[*TEXTURES, LENGTH],
        spacing=(0.1, 0.2),
        fewest_voxels=10,
        lesion_hashes=[lesion_hash(EXTRACTION)],
        descriptors=[DescriptorSummary(descriptor="mass_shape", counts={"oval": 1})],
    )
    expected = "modality-differs settings-differ training-lesion spacing-differs few-pixels touches-border"
    assert [code for code, _ in said(features, own)] == [*expected.split(), "outside-range", "descriptor-missing"]


def test_a_lesion_unlike_the_others_as_a_whole() -> None:
    assert about_distance(Typicality(distance=9.0, percentile=99.6)) == Caution(
        code="far-from-training",
        text="All features together, the lesion lies farther from the middle of the training lesions than 100% of them "
        "do: it is unlike what the model was trained on.",
    )


def test_a_probability_in_the_band() -> None:
    assert about_uncertainty(Band(low=0.4, high=0.6125, confidence=0.875)) == Caution(
        code="uncertain",
        text="The probability lies in the model's uncertain band (40.0% to 61.3%): at a confidence of 87.5% the lesion "
        "can be called neither likely benign nor likely malignant.",
    )


# --- the rules of a card --------------------------------------------------------------------------------------------

UNCERTAIN = ("uncertain", "the probability lies in the uncertain band: the conformal set holds both classes or none")
DESCRIPTOR_RULES = [
    ("descriptor-new", "a descriptor has a value that no training lesion had"),
    ("descriptor-missing", "a descriptor is missing that every training lesion had"),
]
IMAGE_RULES = {
    "modality-unknown, modality-differs": "the image does not say that it is US, or is not",
    "settings-differ": "the hash of the extraction settings is not that of the training lesions",
    "training-lesion": "image and mask are those of a training lesion, by their hash",
    "spacing-unknown": "the image has no pixel spacing, and a feature is a length",
    "spacing-differs": "the pixel spacing is below 0.05 or above 0.3 mm: 1.5 times beyond those of the training images",
    "few-pixels": "the lesion has fewer than 100 pixels, as no training lesion has",
    "touches-border": "the mask reaches the edge of the image",
    "no-provenance": "the values come from a table that does not say how they were extracted",
    "outside-range": "a value is smaller or larger than in every training lesion",
    "far-from-training": "the Mahalanobis distance of the standardised features from their training mean is above 9.9, "
    "which 99% of the training lesions stay below",
}


def test_every_rule_in_its_words() -> None:
    spread = Spread(precision=[[1.0]] * 3, distances=[number / 10 for number in range(101)])
    descriptors = [DescriptorSummary(descriptor="mass_shape", counts={})]
    whole = model(
        features=[*TEXTURES, LENGTH], spread=spread, descriptors=descriptors, spacing=(0.075, 0.2), fewest_voxels=100
    )
    assert rules(whole) == [UNCERTAIN, *IMAGE_RULES.items(), *DESCRIPTOR_RULES]


def test_a_model_has_the_rules_of_what_it_reads_and_knows() -> None:
    bare = model(fewest_voxels=None)
    lacking = ("spacing-unknown", "spacing-differs", "few-pixels", "far-from-training")
    assert rules(bare) == [UNCERTAIN, *((code, rule) for code, rule in IMAGE_RULES.items() if code not in lacking)]
    described = model(features=[], descriptors=[DescriptorSummary(descriptor="mass_shape", counts={})])
    assert rules(described) == [UNCERTAIN, *DESCRIPTOR_RULES]
