"""How much of an image around a lesion a filter is given."""

from __future__ import annotations

import SimpleITK as sitk

from radllm_backend.features.cropping import Margin, Source


def region_size(start: int, margin: Margin) -> tuple[int, ...]:
    image = sitk.Image(100, 80, sitk.sitkInt32)
    return Source(image, image, (start, 40), (10, 10), lambda one: one).region(margin).image.GetSize()


def test_a_region_ends_where_the_image_ends():
    assert region_size(50, Margin((8, 3))) == (26, 16)
    assert region_size(2, Margin((8, 3))) == (20, 16)


def test_a_filter_that_wraps_gets_the_whole_axis_near_an_edge():
    assert region_size(50, Margin((8, 3), wraps=True)) == (26, 16)
    assert region_size(2, Margin((8, 3), wraps=True)) == (100, 16)
