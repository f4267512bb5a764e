"""Pictures and volumes: what each format means by its pixels, and one sentence for whatever cannot be read."""

from __future__ import annotations

import struct
from collections.abc import Callable
from pathlib import Path

import imagecodecs
import numpy as np
import pytest
import SimpleITK as sitk
from PIL import Image

from radllm_backend.errors import RadllmError
from radllm_backend.imaging.image_files import ImageFile, read_image, read_mask

RNG = np.random.default_rng(5)
GREY = RNG.integers(0, 256, (9, 11), dtype=np.uint8)
RGB = RNG.integers(0, 256, (9, 11, 3), dtype=np.uint8)
VOLUME = RNG.integers(0, 250, (8, 60, 50), dtype=np.uint8)


def pixels(file: ImageFile) -> np.ndarray:
    return sitk.GetArrayFromImage(file.pixels)


def luma(rgb: np.ndarray) -> np.ndarray:
    return np.rint(rgb @ [0.299, 0.587, 0.114])


def write_volume(path: Path, values: np.ndarray = VOLUME, compress: bool = False, **header: str) -> Path:
    image = sitk.GetImageFromArray(values)
    for key, value in header.items():
        image.SetMetaData(key, value)
    sitk.WriteImage(image, str(path), useCompression=compress)
    return path


@pytest.mark.parametrize("suffix", ["png", "tif", "TIFF", "bmp", "PNG"])
def test_grey_pictures_keep_their_values(tmp_path: Path, suffix: str) -> None:
    path = tmp_path / f"a.{suffix}"
    Image.fromarray(GREY).save(path, dpi=(300, 300))
    file = read_image(path)
    np.testing.assert_array_equal(pixels(file), GREY)
    assert (file.name, file.has_geometry, file.spacing_known, file.modality) == (path.name, False, False, None)
    assert file.pixels.GetSpacing() == (1, 1)


@pytest.mark.parametrize("suffix", ["png", "tif", "bmp"])
def test_colour_pictures_become_luma(tmp_path: Path, suffix: str) -> None:
    Image.fromarray(RGB).save(tmp_path / f"a.{suffix}")
    np.testing.assert_array_equal(pixels(read_image(tmp_path / f"a.{suffix}")), luma(RGB))


@pytest.mark.parametrize("suffix", ["png", "tif"])
def test_alpha_is_ignored(tmp_path: Path, suffix: str) -> None:
    alpha = RNG.integers(0, 256, GREY.shape, dtype=np.uint8)
    Image.fromarray(np.dstack([GREY, GREY, GREY, alpha])).save(tmp_path / f"a.{suffix}")
    Image.fromarray(np.dstack([RGB, alpha])).save(tmp_path / f"b.{suffix}")
    np.testing.assert_array_equal(pixels(read_image(tmp_path / f"a.{suffix}")), GREY)
    np.testing.assert_array_equal(pixels(read_image(tmp_path / f"b.{suffix}")), luma(RGB))


def test_grey_with_alpha(tmp_path: Path) -> None:
    Image.fromarray(np.dstack([GREY, 255 - GREY]), "LA").save(tmp_path / "a.png")
    np.testing.assert_array_equal(pixels(read_image(tmp_path / "a.png")), GREY)


@pytest.mark.parametrize("suffix", ["png", "tif"])
def test_sixteen_bits(tmp_path: Path, suffix: str) -> None:
    encode: dict[str, Callable] = {"png": imagecodecs.png_encode, "tif": imagecodecs.tiff_encode}
    for name, values, expected in (
        ("grey", GREY.astype(np.uint16) * 200, GREY.astype(np.uint16) * 200),
        ("rgb", RGB.astype(np.uint16) * 201, luma(RGB.astype(np.uint16) * 201)),
    ):
        path = tmp_path / f"{name}.{suffix}"
        if suffix == "tif":
            sitk.WriteImage(sitk.GetImageFromArray(values, isVector=values.ndim == 3), str(path))
        else:
            path.write_bytes(encode[suffix](values))
        np.testing.assert_array_equal(pixels(read_image(path)), expected)
        assert read_image(path).pixels.GetSpacing() == (1, 1)


def test_luma_of_every_grey_is_itself(tmp_path: Path) -> None:
    grey = np.arange(65536, dtype=np.uint16).reshape(256, 256)
    rgb = np.dstack([grey] * 3)
    rgb[0, 0] = (1, 2, 3)  # one coloured pixel, so that all are weighted
    (tmp_path / "a.png").write_bytes(imagecodecs.png_encode(rgb))
    np.testing.assert_array_equal(pixels(read_image(tmp_path / "a.png")).ravel()[1:], grey.ravel()[1:])


@pytest.mark.parametrize("suffix", ["png", "tif"])
def test_palettes_are_looked_up(tmp_path: Path, suffix: str) -> None:
    picture = Image.fromarray(RGB).quantize(7)
    picture.save(tmp_path / f"a.{suffix}")
    shown = np.asarray(picture.convert("RGB"))
    np.testing.assert_array_equal(pixels(read_image(tmp_path / f"a.{suffix}")), luma(shown))


@pytest.mark.parametrize("suffix", ["png", "tif"])
def test_one_bit_masks(tmp_path: Path, suffix: str) -> None:
    Image.fromarray(GREY > 100).save(tmp_path / f"a.{suffix}")
    np.testing.assert_array_equal(pixels(read_mask(tmp_path / f"a.{suffix}")), (GREY > 100) * 255)


def test_float_tiff(tmp_path: Path) -> None:
    values = GREY.astype(np.float32) / 7
    write_volume(tmp_path / "a.tif", values)
    np.testing.assert_array_equal(pixels(read_image(tmp_path / "a.tif")), values)


def test_a_jpeg_is_an_image_but_no_mask(tmp_path: Path) -> None:
    for name in ("a.jpg", "b.png"):  # whatever its name says
        Image.fromarray(np.kron(GREY, np.ones((8, 8), np.uint8))).save(tmp_path / name, "JPEG", quality=98)
        assert np.abs(pixels(read_image(tmp_path / name)).astype(int) - np.kron(GREY, np.ones((8, 8)))).max() < 12
        with pytest.raises(RadllmError, match=rf"{name} is a JPEG file, whose compression changes labels"):
            read_mask(tmp_path / name)


def test_a_coloured_mask_is_its_brightest_channel(tmp_path: Path) -> None:
    Image.fromarray(np.dstack([RGB, np.zeros_like(GREY)])).save(tmp_path / "a.png")
    np.testing.assert_array_equal(pixels(read_mask(tmp_path / "a.png")), RGB.max(axis=-1))


def test_a_file_of_several_pages(tmp_path: Path) -> None:
    page = Image.fromarray(GREY)
    page.save(tmp_path / "a.tif", save_all=True, append_images=[page])
    with pytest.raises(RadllmError, match=r"a\.tif holds 2 pictures: give one"):
        read_image(tmp_path / "a.tif")


@pytest.mark.parametrize("suffix", ["nrrd", "nhdr", "nii", "nii.gz", "NII.GZ", "mha", "mhd", "MHA"])
@pytest.mark.parametrize("compress", [False, True])
def test_volumes(tmp_path: Path, suffix: str, compress: bool) -> None:
    path = write_volume(tmp_path / f"a.{suffix.lower()}", compress=compress).rename(tmp_path / f"a.{suffix}")
    file = read_image(path)
    np.testing.assert_array_equal(pixels(file), VOLUME)
    assert (file.has_geometry, file.spacing_known) == (True, True)


@pytest.mark.parametrize("kept", [0.95, 0.5, 0.01, 0])
@pytest.mark.parametrize("suffix", ["nrrd", "nii", "nii.gz", "mha", "png", "tif", "jpg", "bmp"])
@pytest.mark.parametrize("compress", [False, True])
def test_truncated(tmp_path: Path, capfd: pytest.CaptureFixture[str], suffix: str, kept: float, compress: bool) -> None:
    is_volume = suffix in ("nrrd", "nii", "nii.gz", "mha")
    path = write_volume(tmp_path / f"a.{suffix}", VOLUME if is_volume else VOLUME[0], compress=compress)
    data = path.read_bytes()
    path.write_bytes(data[: int(len(data) * kept)])
    with pytest.raises(RadllmError, match=rf"^a\.{suffix} is damaged, or is no {suffix} file: [^\n]*\.$"):
        read_image(path)
    assert capfd.readouterr().err == ""


@pytest.mark.parametrize("suffix", ["nrrd", "nii", "nii.gz", "mha", "png", "tif", "jpg", "bmp", "dcm"])
def test_text_under_an_image_name(tmp_path: Path, capfd: pytest.CaptureFixture[str], suffix: str) -> None:
    (tmp_path / f"a.{suffix}").write_text("dear colleague, " * 100)
    with pytest.raises(RadllmError, match=rf"^a\.{suffix} is damaged, or is no {suffix} file: [^\n]*\.$"):
        read_image(tmp_path / f"a.{suffix}")
    assert capfd.readouterr().err == ""


def test_a_gzip_whose_content_is_damaged(tmp_path: Path) -> None:
    path = write_volume(tmp_path / "a.nii.gz")
    data = bytearray(path.read_bytes())
    data[2000:2100] = bytes(100)
    path.write_bytes(data)
    with pytest.raises(RadllmError, match=r"a\.nii\.gz is damaged"):
        read_image(path)


def test_other_files(tmp_path: Path) -> None:
    (tmp_path / "a.docx").write_text("dear colleague")
    with pytest.raises(RadllmError, match=r"^a\.docx is no image that can be read here: give DICOM, NRRD, "):
        read_image(tmp_path / "a.docx")
    with pytest.raises(RadllmError, match=r"^b\.png does not exist: check the path\.$"):
        read_image(tmp_path / "b.png")


def test_a_header_without_its_data_file(tmp_path: Path, capfd: pytest.CaptureFixture[str]) -> None:
    path = write_volume(tmp_path / "a.mhd")
    (tmp_path / "a.raw").unlink()
    with pytest.raises(RadllmError, match=r"a\.mhd is damaged"):
        read_image(path)
    path = write_volume(tmp_path / "b.nhdr")
    (tmp_path / "b.raw").unlink()
    with pytest.raises(RadllmError, match=r"b\.nhdr is damaged"):
        read_image(path)
    assert capfd.readouterr().err == ""


@pytest.mark.parametrize("suffix", ["nii", "nrrd"])
def test_four_dimensions(tmp_path: Path, suffix: str) -> None:
    volume = sitk.GetImageFromArray(VOLUME)
    for times in (1, 2):
        sitk.WriteImage(sitk.JoinSeries([volume] * times), str(tmp_path / f"{times}.{suffix}"))
    np.testing.assert_array_equal(pixels(read_image(tmp_path / f"1.{suffix}")), VOLUME)
    with pytest.raises(RadllmError, match=rf"2\.{suffix} has 4 dimensions \(50 x 60 x 8 x 2\): give one volume of it"):
        read_image(tmp_path / f"2.{suffix}")


def test_vectors_and_complex_numbers(tmp_path: Path) -> None:
    vectors = sitk.GetImageFromArray(RNG.random((4, 5, 6, 3)), isVector=True)
    sitk.WriteImage(vectors, str(tmp_path / "v.nrrd"))
    with pytest.raises(RadllmError, match=r"v\.nrrd has 3 values per voxel that are no colour"):
        read_image(tmp_path / "v.nrrd")
    with pytest.raises(RadllmError, match=r"v\.nrrd has 3 values per voxel but names no segments"):
        read_mask(tmp_path / "v.nrrd")
    waves = sitk.RealAndImaginaryToComplex(*[sitk.GetImageFromArray(VOLUME.astype(np.float32))] * 2)
    sitk.WriteImage(waves, str(tmp_path / "c.nii"))
    with pytest.raises(RadllmError, match=r"c\.nii has complex values: give its magnitude"):
        read_image(tmp_path / "c.nii")


def test_a_colour_volume_becomes_luma(tmp_path: Path) -> None:
    rgb = RNG.integers(0, 256, (4, 5, 6, 3), dtype=np.uint8)
    sitk.WriteImage(sitk.GetImageFromArray(rgb, isVector=True), str(tmp_path / "a.nrrd"))
    np.testing.assert_array_equal(pixels(read_image(tmp_path / "a.nrrd")), luma(rgb))


@pytest.mark.parametrize(
    ("fields", "known"),
    [
        ("", (False, False)),
        ("spacings: 0.5 0.25\n", (False, True)),
        ("space: left-posterior-superior\nspace directions: (1,0,0) (0,2,0)\nspace origin: (0,0,0)\n", (True, True)),
    ],
)
def test_what_a_nrrd_header_tells(tmp_path: Path, fields: str, known: tuple[bool, bool]) -> None:
    header = f"NRRD0004\ntype: uint8\ndimension: 2\nsizes: 11 9\nencoding: raw\n{fields}\n"
    if "origin" in fields:
        header = header.replace("dimension: 2\nsizes: 11 9", "dimension: 3\nsizes: 11 9 1")
        header = header.replace("(0,2,0)", "(0,2,0) (0,0,1)")
    (tmp_path / "a.nrrd").write_bytes(header.encode() + GREY.tobytes())
    file = read_image(tmp_path / "a.nrrd")
    np.testing.assert_array_equal(np.squeeze(pixels(file)), GREY)
    assert (file.has_geometry, file.spacing_known) == known


def patched_nifti(path: Path, **values: tuple[float, ...]) -> Path:
    """A NIfTI-1 file with header fields overwritten."""
    places = {"srow_x": (280, "<4f"), "qform_code": (252, "<h"), "sform_code": (254, "<h"), "pixdim": (76, "<4f")}
    data = bytearray(write_volume(path).read_bytes())
    for name, numbers in values.items():
        offset, layout = places[name]
        struct.pack_into(layout, data, offset, *numbers)
    path.write_bytes(data)
    return path


def test_nifti_orientation_codes(tmp_path: Path) -> None:
    for codes, known in (((1, 0), True), ((0, 1), True), ((0, 0), False)):
        path = patched_nifti(tmp_path / "a.nii", qform_code=codes[:1], sform_code=codes[1:])
        assert read_image(path).has_geometry == known
        assert read_image(path).spacing_known


def test_nifti_with_two_voxel_sizes(tmp_path: Path, capfd: pytest.CaptureFixture[str]) -> None:
    path = patched_nifti(tmp_path / "a.nii", srow_x=(-0.5, 0, 0, 0))
    sentence = r"a\.nii gives two voxel sizes, 0\.5 x 1 x 1 \(sform\) and 1 x 1 x 1 \(pixdim\): correct it\."
    with pytest.raises(RadllmError, match=sentence):
        read_image(path)
    assert capfd.readouterr().err == ""


def test_sheared_nifti(tmp_path: Path, capfd: pytest.CaptureFixture[str]) -> None:
    path = patched_nifti(tmp_path / "a.nii", srow_x=(-0.8, 0.6, 0, 0), qform_code=(0,), pixdim=(1, 0.8, 1.166190, 1))
    with pytest.raises(RadllmError, match=r"a\.nii lies on a sheared grid: resample it"):
        read_image(path)
    assert capfd.readouterr().err == ""


def test_seg_nrrd_names_its_segments(tmp_path: Path) -> None:
    header = {"Segment0_ID": "S1", "Segment0_Name": "Tumour", "Segment0_LabelValue": "4", "Segment0_Layer": "0"}
    file = read_mask(write_volume(tmp_path / "a.seg.nrrd", **header, Segment1_ID="S2"))
    assert [(s.id, s.name, s.layer, s.label) for s in file.segments] == [("S1", "Tumour", 0, 4), ("S2", "", 1, 1)]
