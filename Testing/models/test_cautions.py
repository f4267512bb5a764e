"""Cautions by their rules: what the card promises is what is said, and no caution comes without its rule."""

from __future__ import annotations

import re
from pathlib import Path

import pytest

from radllm_backend.models import cautions
from radllm_backend.models.bundle import ModelCard, read_bundle
from radllm_backend.models.cautions import find_cautions, rules
from radllm_backend.models.readme import model_readme
from radllm_backend.models.shipped import shipped_models
from radllm_backend.records import Extraction, Features, Geometry

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
