"""A lesion on its way to another process and back."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
import SimpleITK as sitk

pytest.importorskip("radiomics")

from radllm_backend import Lesion, RadllmError, extract
from radllm_backend.features import elsewhere
from radllm_backend.features.extraction import load_settings
from radllm_backend.features.extraction_settings import Settings
from Testing.support.nodules import ball

TYPES = (np.int16, np.uint16, np.float32, np.float64)


def nodule(kind: type = np.float64) -> Lesion:
    shape = (12, 20, 24)
    image = sitk.GetImageFromArray((100 * np.random.default_rng(3).random(shape)).astype(kind))
    mask = sitk.GetImageFromArray(ball(shape, (6, 10, 12), 4).astype(np.uint8))
    for one in (image, mask):
        one.SetSpacing((0.7, 1 / 3, 2.5))
        one.SetOrigin((-12.5, 1 / 7, 7))
        one.SetDirection((0.0, 1.0, 0.0, 1.0, 0.0, 0.0, 0.0, 0.0, -1.0))
    return Lesion.from_images(image, mask, modality="CT", spacing_known=False, segment="Jane Doe")


@pytest.mark.parametrize("kind", TYPES)
def test_every_number_arrives_and_no_name(tmp_path: Path, kind: type) -> None:
    sent, settings = nodule(kind), load_settings("ct")
    elsewhere.ask(tmp_path, sent, settings)
    (file,) = tmp_path.iterdir()
    assert b"Jane" not in file.read_bytes()
    lesion, chosen = elsewhere._read(file)
    assert chosen == settings
    assert (lesion.modality, lesion.spacing_known, lesion.segment) == ("CT", False, "")
    for name in ("image", "mask"):
        one, other = getattr(sent, name), getattr(lesion, name)
        assert one.GetPixelIDTypeAsString() == other.GetPixelIDTypeAsString()
        for part in ("Size", "Spacing", "Origin", "Direction"):
            assert getattr(one, f"Get{part}")() == getattr(other, f"Get{part}")(), part
        assert np.array_equal(sitk.GetArrayViewFromImage(one), sitk.GetArrayViewFromImage(other))


def test_the_answer_is_what_is_measured_here(tmp_path: Path) -> None:
    settings = Settings.from_dict({"imageType": {"Original": {}}, "featureClass": {"shape": ["Sphericity"]}}, "own")
    elsewhere.ask(tmp_path, nodule(), settings)
    elsewhere.answer(tmp_path)
    assert elsewhere.answered(tmp_path) == extract(nodule(), settings)


def test_what_cannot_be_measured_is_one_sentence(tmp_path: Path) -> None:
    flat = load_settings("breast-ultrasound")
    elsewhere.ask(tmp_path, nodule(), flat)
    elsewhere.answer(tmp_path)
    with pytest.raises(RadllmError, match="are for 2D images and this image is 3D"):
        elsewhere.answered(tmp_path)
