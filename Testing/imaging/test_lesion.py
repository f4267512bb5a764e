"""A lesion: the same from every format, one for each label or segment, and a sentence for whatever cannot be one."""

from __future__ import annotations

import hashlib
import tempfile
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import SimpleITK as sitk
from hypothesis import assume, given, settings
from hypothesis import strategies as st
from PIL import Image

from radllm_backend.errors import RadllmError
from radllm_backend.imaging.image_files import read_image
from radllm_backend.imaging.lesion import Lesion
from Testing.support.dicom_writing import write_dicom, write_slice
from Testing.support.image_cases import RNG, VALUES_2D, VALUES_3D, content, image_of, mask_of, pair, three_labels, write

SHARED = Path(__file__).resolve().parents[3] / "shared" / "data"
# The same lesion, whatever holds it


def rotation(angles: tuple[float, float, float]) -> np.ndarray:
    transform = sitk.Euler3DTransform()
    transform.SetRotation(*angles)
    return np.reshape(transform.GetMatrix(), (3, 3))


@settings(max_examples=30, deadline=None)
@given(
    spacing=st.tuples(*[st.floats(0.01, 20)] * 3),
    origin=st.tuples(*[st.floats(-500, 500)] * 3),
    angles=st.tuples(*[st.floats(-np.pi, np.pi)] * 3),
    mirrored=st.booleans(),
    image_type=st.sampled_from([np.int16, np.uint16, np.int32, np.float32, np.float64]),
    mask_type=st.sampled_from([np.uint8, np.int16, np.float32]),
)
def test_every_volume_format_gives_the_same_lesion(
    spacing: tuple[float, float, float],
    origin: tuple[float, float, float],
    angles: tuple[float, float, float],
    mirrored: bool,
    image_type: type,
    mask_type: type,
) -> None:
    assume(np.abs(origin).max() < 1000 * min(spacing))  # NIfTI keeps seven digits of the origin
    direction = (rotation(angles) @ np.diag([1, 1, -1 if mirrored else 1])).ravel().tolist()
    mask = mask_of(VALUES_3D, dtype=mask_type)
    reference = Lesion.from_images(*(image_of(v, spacing, origin, direction) for v in (VALUES_3D, mask)))
    with tempfile.TemporaryDirectory() as folder:
        for suffix in ("nrrd", "nii", "nii.gz", "mha"):
            image = image_of(VALUES_3D.astype(image_type), spacing, origin, direction)
            files = pair(Path(folder), image, image_of(mask, spacing, origin, direction), suffix)
            assert content(Lesion.from_files(*files)) == content(reference)
        mixed = Lesion.from_files(Path(folder) / "image.nrrd", Path(folder) / "mask.nii")
        assert content(mixed) == content(reference)
        assert mixed.image.GetDirection() == mixed.mask.GetDirection()


@settings(max_examples=30, deadline=None)
@given(spacing=st.tuples(*[st.floats(0.01, 20)] * 2), axis=st.sampled_from([0, 1, 2]))
def test_a_single_slice_is_a_2d_lesion_along_any_axis(spacing: tuple[float, float], axis: int) -> None:
    flat = Lesion.from_images(image_of(VALUES_2D, spacing), image_of(mask_of(VALUES_2D), spacing))
    thick = list(spacing)
    thick.insert(2 - axis, 7.5)
    slices = [np.expand_dims(values, axis) for values in (VALUES_2D, mask_of(VALUES_2D))]
    lesion = Lesion.from_images(*(image_of(values, thick, [1, 2, 3]) for values in slices))
    assert lesion.image.GetDimension() == lesion.mask.GetDimension() == 2
    assert content(lesion) == content(flat)
    np.testing.assert_array_equal(sitk.GetArrayFromImage(lesion.image), VALUES_2D)
    np.testing.assert_array_equal(sitk.GetArrayFromImage(lesion.mask), mask_of(VALUES_2D))


def test_pictures_volumes_and_dicom_of_one_slice_agree(tmp_path: Path) -> None:
    png = write(tmp_path / "image.png", VALUES_2D), write(tmp_path / "mask.png", mask_of(VALUES_2D, 255))
    nrrd = pair(tmp_path, image_of(VALUES_2D[None], (0.07, 0.07, 1)), image_of(mask_of(VALUES_2D)[None], (0.07,) * 3))
    dicom = write_dicom(tmp_path / "image.dcm", VALUES_2D, ImagerPixelSpacing=[0.07, 0.07])
    ct = write_slice(tmp_path / "ct.dcm", VALUES_2D, (1, 2, 3), PixelSpacing=[0.07, 0.07])
    reference = content(Lesion.from_files(*png, spacing=0.07))
    assert content(Lesion.from_files(*png, spacing=(0.07, 0.07))) == reference
    for image, mask in ((nrrd[0], png[1]), nrrd, (png[0], nrrd[1]), (dicom, png[1]), (dicom, nrrd[1]), (ct, png[1])):
        spacing = 0.07 if image == png[0] else None
        assert content(Lesion.from_files(image, mask, spacing=spacing)) == reference


@pytest.mark.parametrize("dtype", ["u1", "i2", "u2", "i8", "f4", "f8"])
def test_the_image_s_hash_is_that_of_its_values_however_they_are_stored(dtype: str) -> None:
    values = (np.arange(400 * 200) % 251 - (100 if dtype in ("i2", "f4") else 0)).reshape(400, 200).astype(dtype)
    expected = hashlib.sha256(b"size (200, 400)\n" + values.astype("<f8").tobytes()).hexdigest()
    for _ in range(2):  # the second time it may be remembered
        assert Lesion.from_images(image_of(values), image_of(mask_of(values))).image_sha256 == expected


def test_a_remembered_hash_is_not_taken_for_another_type_s() -> None:
    signed = np.where(np.arange(90).reshape(9, 10) % 2, -1, 1).astype(np.int16)
    lesions = [Lesion.from_images(image_of(one), image_of(mask_of(one))) for one in (signed, signed.view(np.uint16))]
    assert lesions[0].image_sha256 != lesions[1].image_sha256


def test_hashes_tell_contents_apart() -> None:
    def hashes(values: np.ndarray, mask: np.ndarray, spacing: float = 1.0) -> tuple[str, str]:
        lesion = Lesion.from_images(*(image_of(array, [spacing] * 2) for array in (values, mask)))
        return lesion.image_sha256, lesion.mask_sha256

    mask = mask_of(VALUES_2D)
    changed, moved = VALUES_2D.copy(), mask.copy()
    changed[0, 0] += 1
    moved[0, 0] = 1
    variants = [
        hashes(VALUES_2D, mask),
        hashes(changed, mask),
        hashes(VALUES_2D, moved),
        hashes(VALUES_2D.reshape(10, 9), mask.reshape(10, 9)),
    ]
    assert len({image for image, _ in variants}) == 3  # a changed mask leaves the image as it is
    assert len({mask for _, mask in variants}) == 3  # and a changed image the mask
    assert hashes(VALUES_2D, mask) == hashes(VALUES_2D.astype(float), mask.astype(float) * 7)
    bright = VALUES_2D > 100
    assert hashes(bright * -1.0, mask) == hashes(bright * np.int16(-1), mask)  # -0.0 is 0
    assert hashes(VALUES_2D, mask) == hashes(VALUES_2D, mask, spacing=0.5)  # the geometry tells the spacing


# What a lesion tells about itself


def test_geometry() -> None:
    mask = np.zeros(VALUES_3D.shape, np.uint8)
    mask[0:2, 3:7, 2:4] = 1
    mask[1, 3, 2] = 0
    images = (image_of(values, (0.07, 0.5, 2)) for values in (VALUES_3D, mask))
    geometry = Lesion.from_images(*images).geometry
    assert geometry.size == (10, 9, 6)
    assert geometry.spacing == (0.07, 0.5, 2)
    assert geometry.spacing_known
    assert geometry.bounding_box == (2, 3, 0, 2, 4, 2)
    assert geometry.voxels == 15
    assert not geometry.touches_border  # the first slice is no border


@pytest.mark.parametrize("where", [np.s_[0:3, 4:6], np.s_[4:9, 4:6], np.s_[4:6, 0:2], np.s_[4:6, 7:10]])
def test_touching_the_border(where: tuple[slice, slice]) -> None:
    mask = np.zeros_like(VALUES_2D)
    mask[where] = 1
    assert Lesion.from_images(image_of(VALUES_2D), image_of(mask)).geometry.touches_border


def test_spacing_that_nobody_knows(tmp_path: Path) -> None:
    png = pair(tmp_path, suffix="png")
    lesion = Lesion.from_files(*png)
    assert (lesion.spacing_known, lesion.geometry.spacing_known, lesion.geometry.spacing) == (False, False, (1, 1))
    given = Lesion.from_files(*png, spacing=(0.1, 0.2))
    assert (given.spacing_known, given.geometry.spacing) == (True, (0.1, 0.2))
    unknown = Lesion.from_images(image_of(VALUES_2D, (0.3, 0.3)), image_of(mask_of(VALUES_2D)), spacing_known=False)
    assert content(unknown) == content(lesion)


def test_a_spacing_that_contradicts_the_file(tmp_path: Path) -> None:
    files = pair(tmp_path, image_of(VALUES_2D, (0.1, 0.2)), image_of(mask_of(VALUES_2D), (0.1, 0.2)))
    assert Lesion.from_files(*files, spacing=(0.1005, 0.2)).geometry.spacing == (0.1, 0.2)
    with pytest.raises(RadllmError, match=r"image\.nrrd has voxels of 0\.1 x 0\.2 mm, not 0\.2 x 0\.1"):
        Lesion.from_files(*files, spacing=(0.2, 0.1))
    with pytest.raises(RadllmError, match=r"image\.nrrd has voxels of"):
        Lesion.from_files(*files, spacing=0.1)


@pytest.mark.parametrize("spacing", [0, -1, float("nan"), float("inf"), (0.1,), (0.1, 0.1, 0.1)])
def test_a_spacing_that_is_none(tmp_path: Path, spacing: Any) -> None:
    with pytest.raises(RadllmError, match=r"does not suit image\.png: give 2 sizes in mm above zero"):
        Lesion.from_files(*pair(tmp_path, suffix="png"), spacing=spacing)


def test_modality(tmp_path: Path) -> None:
    image, mask = pair(tmp_path, suffix="png")
    assert Lesion.from_files(image, mask).modality is None
    assert Lesion.from_files(image, mask, modality="US").modality == "US"
    dicom = write_dicom(tmp_path / "a.dcm", VALUES_2D)
    assert Lesion.from_files(dicom, mask).modality == Lesion.from_files(dicom, mask, modality="MG").modality == "MG"
    with pytest.raises(RadllmError, match=r"a\.dcm is MG, not CT: correct the modality"):
        Lesion.from_files(dicom, mask, modality="CT")
    with pytest.raises(RadllmError, match="The modality 'PET' is not known: give one of MG, US, CT, MR"):
        Lesion.from_files(image, mask, modality="PET")


# Grids


SHIFTED = [
    ({"spacing": (1, 1.002, 2)}, "spacing"),
    ({"origin": (5, 6.002, 7)}, "origin"),
    ({"direction": rotation((0, 0, 0.001)).ravel().tolist()}, "direction"),
]


@pytest.mark.parametrize(("grid", "what"), SHIFTED, ids=[what for _, what in SHIFTED])
def test_a_mask_on_another_grid(tmp_path: Path, grid: dict, what: str) -> None:
    own = {"spacing": (1, 1, 2), "origin": (5, 6, 7)}
    files = pair(tmp_path, image_of(VALUES_3D, **own), image_of(mask_of(VALUES_3D), **{**own, **grid}))
    sentence = (
        rf"mask\.nrrd lies on another grid than image\.nrrd \(other {what}\): size 10 x 9 x 6, spacing .* mm, "
        r"origin \(.*\), direction \(.*\), against size 10 x 9 x 6, spacing 1 x 1 x 2 mm, origin \(5, 6, 7\), "
        r"direction \(1, 0, 0, 0, 1, 0, 0, 0, 1\); draw it on this image or let it be resampled\."
    )
    with pytest.raises(RadllmError, match=sentence):
        Lesion.from_files(*files)


def test_a_mask_of_another_size(tmp_path: Path) -> None:
    with pytest.raises(RadllmError, match=r"\(other size\): size 9 x 9, .* against size 10 x 9, .*; draw it on this"):
        Lesion.from_files(*pair(tmp_path, mask=mask_of(VALUES_2D)[:, :-1], suffix="png"))


def test_a_mask_on_nearly_the_same_grid() -> None:
    image = image_of(VALUES_3D, (1, 1, 2), (5, 6, 7))
    near = rotation((0, 0, 5e-5)).ravel().tolist()
    mask = image_of(mask_of(VALUES_3D), (1, 1.0005, 2), (5, 6.0005, 7), near)
    lesion = Lesion.from_images(image, mask)
    for what in ("GetSize", "GetSpacing", "GetOrigin", "GetDirection"):
        assert getattr(lesion.mask, what)() == getattr(lesion.image, what)()


def test_a_mask_of_a_picture_that_says_another_pixel_size(tmp_path: Path) -> None:
    image = write_dicom(tmp_path / "a.dcm", VALUES_2D, ImagerPixelSpacing=[0.07, 0.07])
    mask = write(tmp_path / "mask.nrrd", image_of(mask_of(VALUES_2D), (0.1, 0.1), (3, 4)))
    with pytest.raises(RadllmError, match=r"mask\.nrrd lies on another grid than a\.dcm \(other spacing\)"):
        Lesion.from_files(image, mask)


def test_resampling(tmp_path: Path) -> None:
    image = image_of(VALUES_3D, (1, 1, 1))
    fine = np.zeros((12, 18, 20), np.uint8)
    fine[4:8, 6:10, 4:12] = 5
    files = pair(tmp_path, image, image_of(fine, (0.5,) * 3, (-0.25,) * 3))
    with pytest.raises(RadllmError, match=r"other size, spacing, origin"):
        Lesion.from_files(*files)
    lesion = Lesion.from_files(*files, resample=True)
    assert lesion.geometry.bounding_box == (2, 3, 2, 4, 2, 2)
    assert lesion.geometry.voxels == 16
    same = pair(tmp_path, VALUES_3D)
    assert content(Lesion.from_files(*same, resample=True)) == content(Lesion.from_files(*same))
    coarse = pair(tmp_path, image, image_of(mask_of(VALUES_3D), (0.34,) * 3, (0.1,) * 3))
    with pytest.raises(RadllmError, match=r"mask\.nrrd is a single voxel"):
        Lesion.from_files(*coarse, resample=True)
    far = pair(tmp_path, image, image_of(fine, (0.5,) * 3, (100, 0, 0)))
    with pytest.raises(RadllmError, match=r"mask\.nrrd lies outside image\.nrrd, so that resampling leaves nothing"):
        Lesion.from_files(*far, resample=True)
    with pytest.raises(RadllmError, match=r"lies on another grid .*; draw it on this image\."):
        Lesion.from_files(*pair(tmp_path, mask=mask_of(VALUES_2D)[:-1], suffix="png"), resample=True)


def test_dimensions_that_do_not_fit(tmp_path: Path) -> None:
    flat, deep = write(tmp_path / "flat.png", VALUES_2D), write(tmp_path / "deep.nrrd", VALUES_3D)
    with pytest.raises(RadllmError, match=r"mask\.nrrd is 3D but flat\.png is 2D: give the mask of this image"):
        Lesion.from_files(flat, write(tmp_path / "mask.nrrd", mask_of(VALUES_3D)))
    with pytest.raises(RadllmError, match=r"mask\.png is 2D but deep\.nrrd is 3D: give the mask of this image"):
        Lesion.from_files(deep, write(tmp_path / "mask.png", mask_of(VALUES_2D)))
    with pytest.raises(RadllmError, match="the image has 4 dimensions: give a 2D or 3D image"):
        Lesion.from_images(sitk.JoinSeries([image_of(VALUES_3D)] * 2), image_of(mask_of(VALUES_3D)))


# What cannot be a lesion


@pytest.mark.parametrize(
    ("marked", "sentence"),
    [
        (np.s_[0:0], "is empty: mark the lesion"),
        (np.s_[3, 4], "is a single voxel: mark the whole lesion"),
        (np.s_[3, 2:7], "is a single row or column of voxels"),
        (np.s_[2:7, 3], "is a single row or column of voxels"),
    ],
)
def test_a_mask_too_small(tmp_path: Path, marked: Any, sentence: str) -> None:
    mask = np.zeros_like(VALUES_2D)
    mask[marked] = 1
    with pytest.raises(RadllmError, match=rf"^mask\.png {sentence}"):
        Lesion.from_files(*pair(tmp_path, mask=mask, suffix="png"))
    with pytest.raises(RadllmError, match="^the mask is " if not mask.any() else "^segment 'Tumour' is a single"):
        Lesion.from_images(image_of(VALUES_2D), image_of(mask), segment="Tumour" if mask.any() else "")


def test_one_label_too_small(tmp_path: Path) -> None:
    mask = three_labels()
    mask[8, 0] = 4
    with pytest.raises(RadllmError, match=r"label 4 of mask\.nrrd is a single voxel"):
        Lesion.all_from_files(*pair(tmp_path, mask=mask))


@pytest.mark.parametrize("value", [0.5, -1, np.nan, np.inf])
def test_mask_values_that_are_no_labels(tmp_path: Path, value: float) -> None:
    mask = mask_of(VALUES_2D).astype(np.float32)
    mask[0, 0] = value
    with pytest.raises(RadllmError, match=r"mask\.nrrd has values that are no labels: use whole numbers"):
        Lesion.from_files(*pair(tmp_path, mask=mask))


@pytest.mark.parametrize("value", [np.nan, np.inf, -np.inf])
def test_an_image_with_undefined_values(tmp_path: Path, value: float) -> None:
    values = VALUES_2D.astype(np.float32)
    values[0, 0] = value
    with pytest.raises(RadllmError, match=r"image\.nrrd has NaN or infinite values: replace them"):
        Lesion.from_files(*pair(tmp_path, image=values))


def test_a_constant_image(tmp_path: Path) -> None:
    with pytest.raises(RadllmError, match=r"image\.nrrd is constant \(7 everywhere\): give the image itself"):
        Lesion.from_files(*pair(tmp_path, image=np.full_like(VALUES_2D, 7)))


def test_colours_in_memory() -> None:
    rgb = RNG.integers(0, 256, (9, 10, 3), dtype=np.uint8)
    mask = image_of(mask_of(VALUES_2D))
    lesion = Lesion.from_images(sitk.GetImageFromArray(rgb, isVector=True), mask)
    np.testing.assert_array_equal(sitk.GetArrayFromImage(lesion.image), np.rint(rgb @ [0.299, 0.587, 0.114]))
    with pytest.raises(RadllmError, match="the image has 2 values per voxel that are no colour"):
        Lesion.from_images(sitk.GetImageFromArray(rgb[..., :2], isVector=True), mask)
    with pytest.raises(RadllmError, match="the mask has several values per voxel"):
        Lesion.from_images(image_of(VALUES_2D), sitk.GetImageFromArray(rgb, isVector=True))


@pytest.mark.parametrize("values", [VALUES_2D, VALUES_3D, VALUES_3D[:1]], ids=["2D", "3D", "one slice"])
def test_the_callers_images_stay_as_they_are(values: np.ndarray) -> None:
    grid = (0.1, 0.2, 3)[: values.ndim], (1, 2, 3)[: values.ndim]
    images = image_of(values, *grid), image_of(mask_of(values), *grid)
    Lesion.from_images(*images, spacing_known=False)
    for image in images:
        assert (image.GetDimension(), image.GetSpacing(), image.GetOrigin()) == (values.ndim, *grid)


def test_the_lesion_stays_as_it_is_when_the_callers_image_changes() -> None:
    """Both share the pixels until then."""
    image = sitk.GetImageFromArray(np.arange(30, dtype=np.int16).reshape(5, 6))
    mask = sitk.GetImageFromArray(np.pad(np.ones((3, 4), np.uint8), 1))
    lesion = Lesion.from_images(image, mask)
    before = (lesion.image_sha256, lesion.mask_sha256)
    image[2, 2], mask[2, 2] = 99, 0
    image.SetSpacing((2, 2))
    image += 1
    untouched = Lesion(lesion.image, lesion.mask, None, True)
    assert (untouched.image_sha256, untouched.mask_sha256) == before
    assert lesion.image.GetSpacing() == (1, 1)


@settings(max_examples=40, deadline=None)
@given(data=st.data(), dimension=st.integers(2, 3))
def test_the_bounding_box_is_that_of_itk(data: st.DataObject, dimension: int) -> None:
    shape = data.draw(st.tuples(*[st.integers(2, 7)] * dimension))
    marked = np.array(data.draw(st.lists(st.booleans(), min_size=int(np.prod(shape)), max_size=int(np.prod(shape)))))
    mask = sitk.GetImageFromArray(marked.reshape(shape).astype(np.uint8))
    image = sitk.GetImageFromArray(np.arange(marked.size, dtype=np.float32).reshape(shape))
    try:
        lesion = Lesion.from_images(image, mask)
    except RadllmError:  # too small for a lesion
        assume(False)
    statistics = sitk.LabelShapeStatisticsImageFilter()
    statistics.Execute(mask)
    assert lesion.geometry.bounding_box == statistics.GetBoundingBox(1)
    assert lesion.geometry.voxels == statistics.GetNumberOfPixels(1)


def test_a_file_that_was_read_stays_as_it_is(tmp_path: Path) -> None:
    read = read_image(pair(tmp_path, suffix="png")[0])
    Lesion.from_files(read, tmp_path / "mask.png", spacing=0.3)
    assert (read.pixels.GetSpacing(), read.spacing_known) == ((1, 1), False)


# Real data


def test_every_breast_ultrasound_lesion() -> None:
    folder = SHARED / "breast-us" / "images"
    if not folder.is_dir():
        pytest.skip("the breast-us images are not beside the repository")
    masks = sorted(folder.glob("*_tumor.png"))
    assert len(masks) == 176
    for mask in masks:
        path = folder / mask.name.replace("_tumor", "")
        lesion = Lesion.from_files(path, mask, spacing=0.07, modality="US")
        assert 100 < lesion.geometry.voxels < 200_000
    for mask in masks[::8]:
        path = folder / mask.name.replace("_tumor", "")
        lesion = Lesion.from_files(path, mask)
        pillow = np.asarray(Image.open(path).convert("L"), dtype=int)
        assert np.abs(sitk.GetArrayFromImage(lesion.image) - pillow).max() <= 1  # which weighs in whole numbers
        drawn = np.asarray(Image.open(mask).convert("RGB")).any(axis=-1)
        np.testing.assert_array_equal(sitk.GetArrayFromImage(lesion.mask), drawn)


@pytest.mark.parametrize(("case", "voxels"), [("brain1", 4137), ("breast1", 143)])
def test_the_test_images_of_pyradiomics(case: str, voxels: int) -> None:
    folder = SHARED / "pyradiomics"
    if not folder.is_dir():
        pytest.skip("PyRadiomics' test images are not beside the repository")
    lesion = Lesion.from_files(folder / f"{case}_image.nrrd", folder / f"{case}_label.nrrd")
    assert lesion.geometry.voxels == voxels
    assert lesion.image.GetDimension() == 3
