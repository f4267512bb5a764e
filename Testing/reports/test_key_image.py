"""The picture of a report: the outline in true proportions, the scale bar, and lesions that are hard to show."""

from __future__ import annotations

import io

import numpy as np
import pytest
import SimpleITK as sitk
from PIL import Image

from radllm_backend.imaging.lesion import Lesion
from radllm_backend.reports.key_image import OUTLINE, SIDE, key_image
from Testing.support.report_cases import PREDICTION, box_lesion, page, words


def decoded(png: bytes) -> np.ndarray:
    return np.asarray(Image.open(io.BytesIO(png)).convert("RGB")).astype(int)


def is_outline(pixels: np.ndarray) -> np.ndarray:
    return (pixels == OUTLINE).all(axis=2)


@pytest.mark.parametrize("spacing", [(0.1, 0.1), (0.1, 0.25)])
def test_outline_runs_around_the_lesion_in_true_proportions(spacing: tuple[float, float]) -> None:
    pixels = decoded(key_image(box_lesion(spacing)).png)
    assert max(pixels.shape) == SIDE
    rows, columns = np.nonzero(is_outline(pixels))
    width, height = np.ptp(columns) - 1, np.ptp(rows) - 1  # the line is 3 wide, its middle on the edge
    assert width / height == pytest.approx(40 * spacing[0] / (20 * spacing[1]), rel=0.05)
    inside = is_outline(pixels)[rows.min() + 4 : rows.max() - 3, columns.min() + 4 : columns.max() - 3]
    assert not inside.any()
    margin = min(rows.min(), columns.min(), pixels.shape[0] - rows.max(), pixels.shape[1] - columns.max())
    assert margin > 20


def test_the_scale_bar_measures_what_it_says_and_needs_a_spacing() -> None:
    with_bar, without = (decoded(key_image(box_lesion(spacing_known=known)).png) for known in (True, False))
    assert not is_outline(with_bar)[-60:].any()
    assert not with_bar[-24:-12, 11:16].any()  # the black plate under it
    assert without[-24:-12, 11:16].all()
    columns = np.flatnonzero(is_outline(with_bar).any(axis=0))
    pixels_per_mm = (np.ptp(columns) - 1) / 4.0  # 40 pixels of 0.1 mm
    bar = (with_bar[-20, : SIDE // 2] == 255).all(axis=1)
    assert bar.sum() == pytest.approx(2 * pixels_per_mm, rel=0.03)  # "2 mm": the longest round length in a third


def test_of_a_volume_the_slice_with_the_largest_area_is_shown() -> None:
    lesion = box_lesion()
    small = sitk.Image(lesion.mask)
    small[60:100, 50:60] = 0
    slices = [lesion.image * 0.5 + 3, lesion.image, lesion.image * 2]
    volume = Lesion.from_images(sitk.JoinSeries(slices), sitk.JoinSeries([small, lesion.mask, small]), modality="MR")
    assert key_image(volume).png == key_image(lesion).png
    assert "on the slice where it is largest" in words(page(PREDICTION, volume).figcaption)
    assert "slice" not in words(page(PREDICTION, lesion).figcaption)


def test_a_lesion_that_fills_the_image_and_a_flat_one_have_a_key_image() -> None:
    image = sitk.GetImageFromArray(np.arange(400, dtype=np.float32).reshape(20, 20))
    full = Lesion.from_images(image, sitk.GetImageFromArray(np.ones((20, 20), np.uint8)), modality="US")
    assert not is_outline(decoded(key_image(full).png)).any()
    flat = np.zeros((100, 100), np.float32)
    flat[0, 0] = 9  # far from the lesion
    mask = np.zeros((100, 100), np.uint8)
    mask[50:60, 50:60] = 1
    lesion = Lesion.from_images(sitk.GetImageFromArray(flat), sitk.GetImageFromArray(mask), modality="US")
    assert is_outline(decoded(key_image(lesion).png)).any()


def test_without_a_lesion_there_is_no_picture() -> None:
    assert not page(PREDICTION).find(["img", "figure"])
    assert page(PREDICTION, box_lesion()).img["alt"]  # type: ignore[index]
