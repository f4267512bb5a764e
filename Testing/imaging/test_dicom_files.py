"""DICOM: every decoder gives the values that the header means, and a series becomes a volume or a clear refusal."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path

import imagecodecs
import numpy as np
import pydicom
import pytest
import SimpleITK as sitk
from hypothesis import given, reject, settings
from hypothesis import strategies as st
from hypothesis.extra.numpy import arrays
from pydicom.dataset import Dataset
from pydicom.encaps import encapsulate
from pydicom.uid import UID, ExplicitVRLittleEndian, JPEGBaseline8Bit, JPEGLSLossless, RLELossless

from radllm_backend.errors import RadllmError
from radllm_backend.imaging.image_files import ImageFile, read_image, read_mask
from Testing.support.dicom_writing import NATIVE, SYNTAXES, write_dicom, write_enhanced, write_slice

NOISE = np.random.default_rng(7).integers(0, 4096, (24, 32), dtype=np.uint16)


def pixels(file: ImageFile) -> np.ndarray:
    return sitk.GetArrayFromImage(file.pixels)


def by_gdcm(path: Path) -> np.ndarray:
    """The file as ITK's own DICOM reader understands it: an independent reading of header and pixels."""
    return sitk.GetArrayFromImage(sitk.ReadImage(str(path)))


@pytest.mark.parametrize("dtype", [np.uint8, np.uint16])
@pytest.mark.parametrize("syntax", SYNTAXES, ids=lambda uid: uid.name.split("(")[0].strip())
def test_every_transfer_syntax_gives_the_stored_values(tmp_path: Path, syntax: UID, dtype: type) -> None:
    stored = NOISE.astype(dtype)
    path = write_dicom(tmp_path / "a.dcm", stored, syntax=syntax)
    np.testing.assert_array_equal(pixels(read_image(path)), stored)
    np.testing.assert_array_equal(pixels(read_image(path)), by_gdcm(path)[0])


@settings(max_examples=60, deadline=None)
@given(
    bits=st.integers(9, 16),  # of the 16 allocated; pydicom does not encode fewer as RLE
    signed=st.booleans(),
    monochrome=st.sampled_from(["MONOCHROME1", "MONOCHROME2"]),
    slope=st.sampled_from(["1", "2", "0.5", "0.1", "1.7e-3", "-1"]),
    intercept=st.sampled_from(["0", "-1024", "0.3", "70000"]),
    syntax=st.sampled_from([ExplicitVRLittleEndian, RLELossless, JPEGLSLossless]),
    data=st.data(),
)
def test_values_are_those_of_gdcm_bit_for_bit(
    tmp_path_factory: pytest.TempPathFactory,
    bits: int,
    signed: bool,
    monochrome: str,
    slope: str,
    intercept: str,
    syntax: UID,
    data: st.DataObject,
) -> None:
    signed = signed and syntax != JPEGLSLossless  # the encoder at hand has no signed values
    low, high = (-(2 ** (bits - 1)), 2 ** (bits - 1) - 1) if signed else (0, 2**bits - 1)
    dtype = np.dtype(np.int16 if signed else np.uint16)
    stored = data.draw(arrays(dtype, (4, 6), elements=st.integers(low, high)))
    rescale = {"RescaleSlope": slope, "RescaleIntercept": intercept, "PhotometricInterpretation": monochrome}
    folder = tmp_path_factory.mktemp("dicom")
    path = write_dicom(folder / "a.dcm", stored, bits_stored=bits, syntax=syntax, **rescale)
    plain = write_dicom(folder / "b.dcm", stored, bits_stored=bits, **rescale)  # GDCM reads no RLE this small
    read = pixels(read_image(path))
    try:
        expected = by_gdcm(plain)[0]
    except RuntimeError:  # GDCM gives up on a few combinations of bits, signs and values: no example to compare with
        reject()
    np.testing.assert_array_equal(read, expected)


@pytest.mark.parametrize("syntax", [ExplicitVRLittleEndian, RLELossless, JPEGLSLossless])
def test_monochrome1_is_its_own_negative(tmp_path: Path, syntax: UID) -> None:
    rescale = {"RescaleSlope": "2", "RescaleIntercept": "-5", "bits_stored": 12, "syntax": syntax}
    two = write_dicom(tmp_path / "2.dcm", NOISE, PhotometricInterpretation="MONOCHROME2", **rescale)
    one = write_dicom(tmp_path / "1.dcm", 4095 - NOISE, PhotometricInterpretation="MONOCHROME1", **rescale)
    np.testing.assert_array_equal(pixels(read_image(two)), NOISE.astype(int) * 2 - 5)
    np.testing.assert_array_equal(pixels(read_image(one)), pixels(read_image(two)))


def test_a_mask_is_never_inverted(tmp_path: Path) -> None:
    stored = np.zeros((8, 8), np.uint8)
    stored[2:5, 2:5] = 255
    path = write_dicom(tmp_path / "mask.dcm", stored, PhotometricInterpretation="MONOCHROME1")
    np.testing.assert_array_equal(pixels(read_mask(path)), stored)


def test_the_same_without_the_optional_decoders(tmp_path: Path) -> None:
    """As inside 3D Slicer, which has pydicom and SimpleITK but no pylibjpeg and no imagecodecs."""
    for number, syntax in enumerate(SYNTAXES):
        write_dicom(tmp_path / f"{number}.dcm", NOISE, syntax=syntax, bits_stored=12)
    script = (
        "import sys\n"
        "for name in ('imagecodecs', 'pylibjpeg', 'rle', 'openjpeg', 'gdcm', 'jpeg_ls'): sys.modules[name] = None\n"
        "import SimpleITK as sitk\n"
        "from pathlib import Path\n"
        "from radllm_backend.imaging.image_files import read_image\n"
        "for path in Path(sys.argv[1]).iterdir(): print(sitk.Hash(read_image(path).pixels))\n"
    )
    command = [sys.executable, "-c", script, str(tmp_path)]
    run = subprocess.run(command, capture_output=True, text=True, check=True, cwd=Path(__file__).parents[2])
    assert run.stdout.split() == [sitk.Hash(sitk.GetImageFromArray(NOISE))] * len(SYNTAXES)
    assert run.stderr == ""


@pytest.mark.parametrize("syntax", [*NATIVE, RLELossless])
@pytest.mark.parametrize("colours", ["RGB", "YBR_FULL"])
def test_colour_becomes_the_luma_of_what_gdcm_shows(tmp_path: Path, syntax: UID, colours: str) -> None:
    rgb = np.random.default_rng(1).integers(0, 256, (10, 12, 3), dtype=np.uint8)
    path = write_dicom(tmp_path / "us.dcm", rgb, syntax=syntax, PhotometricInterpretation=colours, Modality="US")
    luma = np.rint(by_gdcm(path)[0] @ [0.299, 0.587, 0.114])
    assert read_image(path).modality == "US"
    np.testing.assert_array_equal(pixels(read_image(path)), luma)


def test_a_grey_picture_stored_in_colour_keeps_its_values(tmp_path: Path) -> None:
    grey = NOISE.astype(np.uint8)
    rgb = np.dstack([grey] * 3)
    path = write_dicom(tmp_path / "a.dcm", rgb, PhotometricInterpretation="RGB")
    planar = write_dicom(tmp_path / "b.dcm", rgb, PhotometricInterpretation="RGB")
    dataset = pydicom.dcmread(planar)
    dataset.PlanarConfiguration, dataset.PixelData = 1, rgb.transpose(2, 0, 1).tobytes()
    dataset.save_as(planar)
    for file in (path, planar):
        np.testing.assert_array_equal(pixels(read_image(file)), grey)


def test_jpeg_ultrasound_is_close_to_the_original(tmp_path: Path) -> None:
    rgb = np.kron(np.random.default_rng(2).integers(0, 256, (4, 4, 3)), np.ones((16, 16, 1))).astype(np.uint8)
    path = write_dicom(tmp_path / "a.dcm", rgb, PhotometricInterpretation="RGB", Modality="US")
    dataset = pydicom.dcmread(path)
    dataset.PhotometricInterpretation = "YBR_FULL_422"
    dataset.file_meta.TransferSyntaxUID = JPEGBaseline8Bit
    dataset.PixelData = encapsulate([imagecodecs.jpeg8_encode(rgb, level=98)])
    dataset["PixelData"].is_undefined_length = True
    dataset.save_as(path)
    assert np.abs(pixels(read_image(path)) - np.rint(rgb @ [0.299, 0.587, 0.114])).max() < 8


def test_palette_colour(tmp_path: Path) -> None:
    indices = NOISE.astype(np.uint8)
    path = write_dicom(tmp_path / "a.dcm", indices, PhotometricInterpretation="PALETTE COLOR")
    dataset = pydicom.dcmread(path)
    table = np.arange(256, dtype=np.uint16)[::-1] * 257
    for colour in ("Red", "Green", "Blue"):
        dataset.add_new(f"{colour}PaletteColorLookupTableDescriptor", "US", [256, 0, 16])
        dataset.add_new(f"{colour}PaletteColorLookupTableData", "OW", table.tobytes())
    dataset.save_as(path)
    np.testing.assert_array_equal(pixels(read_image(path)), 255 - indices)


@pytest.mark.parametrize(
    ("elements", "expected"),
    [
        ({"PixelSpacing": [0.3, 0.2], "ImagerPixelSpacing": [0.1, 0.1]}, (0.2, 0.3)),
        ({"ImagerPixelSpacing": [0.1, 0.05]}, (0.05, 0.1)),
        ({"PixelSpacing": [0, 0], "ImagerPixelSpacing": [0.1, 0.05]}, (0.05, 0.1)),
        ({"NominalScannedPixelSpacing": [0.05, 0.05]}, (0.05, 0.05)),
        ({}, None),
    ],
)
def test_pixel_size(tmp_path: Path, elements: dict, expected: tuple[float, float] | None) -> None:
    file = read_image(write_dicom(tmp_path / "a.dcm", NOISE, **elements))
    assert file.spacing_known == (expected is not None)
    assert not file.has_geometry
    assert file.pixels.GetSpacing() == pytest.approx(expected or (1, 1))


def region(unit: int, x: float, y: float) -> Dataset:
    item = Dataset()
    item.PhysicalUnitsXDirection = item.PhysicalUnitsYDirection = unit
    item.PhysicalDeltaX, item.PhysicalDeltaY = x, y
    return item


@pytest.mark.parametrize(
    ("regions", "expected"),
    [
        ([region(3, 0.007, 0.008)], (0.07, 0.08)),
        ([region(3, 0.007, -0.008), region(4, 1, 1)], (0.07, 0.08)),
        ([region(3, 0.007, 0.007), region(3, 0.009, 0.009)], None),
        ([region(4, 0.007, 0.007)], None),
        ([region(3, 0, 0)], None),
    ],
)
def test_pixel_size_of_ultrasound(tmp_path: Path, regions: list[Dataset], expected: tuple[float, float] | None) -> None:
    path = write_dicom(tmp_path / "a.dcm", NOISE, Modality="US", SequenceOfUltrasoundRegions=regions)
    file = read_image(path)
    assert file.spacing_known == (expected is not None)
    assert file.pixels.GetSpacing() == pytest.approx(expected or (1, 1))


@pytest.mark.parametrize(("written", "read"), [("MG", "MG"), ("CT", "CT"), ("MR", "MR"), ("CR", None), ("", None)])
def test_modality(tmp_path: Path, written: str, read: str | None) -> None:
    assert read_image(write_dicom(tmp_path / "a.dcm", NOISE, Modality=written)).modality == read


def write_series(folder: Path, count: int = 5, step: float = 2.5, angle: float = 0.0, uid: str = "1.2.3") -> np.ndarray:
    """Slices under shuffled names, tilted about x by the angle; returns the volume."""
    folder.mkdir(exist_ok=True)
    volume = np.random.default_rng(3).integers(0, 3000, (count, 6, 8), dtype=np.uint16)
    down = np.array([0, np.cos(angle), np.sin(angle)])
    normal = np.array([0, -np.sin(angle), np.cos(angle)])
    orientation = [float(f"{number:.9f}") for number in (1, 0, 0, *down)]
    for number in range(count):
        position = np.array([-10.5, 20, 30]) + number * step * normal
        name = f"{number * 37 % 101}-{uid}.dcm"
        elements = {"RescaleIntercept": "-1024", "RescaleSlope": "1", "SeriesInstanceUID": uid}
        write_slice(folder / name, volume[number], position, ImageOrientationPatient=orientation, **elements)
    return volume


@pytest.mark.parametrize("angle", [0.0, 0.7, -2.0])
def test_a_series_is_sorted_in_space_as_itk_sorts_it(tmp_path: Path, angle: float) -> None:
    volume = write_series(tmp_path / "ct", angle=angle)
    (tmp_path / "ct" / "notes.txt").write_text("not an image")
    file = read_image(tmp_path / "ct")
    names = sitk.ImageSeriesReader.GetGDCMSeriesFileNames(str(tmp_path / "ct"))
    by_itk = sitk.ReadImage(names)
    assert (file.has_geometry, file.spacing_known, file.modality) == (True, True, "CT")
    np.testing.assert_array_equal(pixels(file), volume.astype(int) - 1024)
    np.testing.assert_array_equal(pixels(file), sitk.GetArrayFromImage(by_itk))
    for what in ("GetSize", "GetSpacing", "GetOrigin", "GetDirection"):
        assert getattr(file.pixels, what)() == pytest.approx(getattr(by_itk, what)(), abs=1e-5)


def test_one_slice_keeps_its_place(tmp_path: Path) -> None:
    path = write_slice(tmp_path / "a.dcm", NOISE, (1, 2, 3))
    file = read_image(path)
    assert file.has_geometry
    assert file.pixels.GetSize() == (32, 24, 1)
    assert file.pixels.GetOrigin() == (1, 2, 3)
    assert file.pixels.GetSpacing() == (0.25, 0.5, 1)


def test_rounded_positions_are_still_even(tmp_path: Path) -> None:
    for number in range(9):
        write_slice(tmp_path / f"{number}.dcm", NOISE, (0, 0, round(number * 0.625, 1)))
    assert read_image(tmp_path).pixels.GetSpacing()[2] == pytest.approx(0.625)


def test_a_folder_of_several_series_wants_a_choice(tmp_path: Path) -> None:
    write_series(tmp_path, uid="1.2.3")
    write_series(tmp_path, uid="1.2.4", count=3)
    with pytest.raises(RadllmError, match=r"holds 2 series: pass series=UID, one of 1\.2\.3, 1\.2\.4"):
        read_image(tmp_path)
    with pytest.raises(RadllmError, match=r"does not hold the series 1\.9"):
        read_image(tmp_path, series="1.9")
    assert read_image(tmp_path, series="1.2.4").pixels.GetSize() == (8, 6, 3)


def test_a_missing_slice(tmp_path: Path) -> None:
    write_series(tmp_path, count=12)
    for gone in (1, 5, 10):
        names = sitk.ImageSeriesReader.GetGDCMSeriesFileNames(str(tmp_path))
        kept = Path(names[gone]).read_bytes()
        Path(names[gone]).unlink()
        with pytest.raises(RadllmError, match=r"lacks slices or has uneven ones \(gaps up to 5 mm\)"):
            read_image(tmp_path)
        Path(names[gone]).write_bytes(kept)
    read_image(tmp_path)


def test_slices_that_make_no_volume(tmp_path: Path) -> None:
    def refused(sentence: str, *others: tuple[np.ndarray, tuple[float, float, float], dict]) -> None:
        write_slice(tmp_path / "0.dcm", NOISE, (0, 0, 0))
        for number, (stored, position, elements) in enumerate(others, start=1):
            write_slice(tmp_path / f"{number}.dcm", stored, position, **elements)
        with pytest.raises(RadllmError, match=sentence):
            read_image(tmp_path)

    refused("slices of different sizes", (NOISE[:-1], (0, 0, 1), {}))
    refused("different direction or pixel size", (NOISE, (0, 0, 1), {"PixelSpacing": [0.5, 0.5]}))
    refused("different direction", (NOISE, (0, 0, 1), {"ImageOrientationPatient": [1, 0, 0, 0, 0, 1]}))
    refused("several slices at one position", (NOISE, (0, 0, 0), {}))
    refused("several slices at one position", (NOISE, (0, 0, 1), {}), (NOISE, (0, 0, 1), {}), (NOISE, (0, 0, 0), {}))
    (tmp_path / "3.dcm").unlink()
    refused("tilted gantry", (NOISE, (0, 1, 1), {}), (NOISE, (0, 2, 2), {}))


def test_the_views_of_a_mammogram_are_no_volume(tmp_path: Path) -> None:
    for view in ("lcc", "lmlo", "rcc", "rmlo"):
        write_dicom(tmp_path / f"{view}.dcm", NOISE)
    with pytest.raises(RadllmError, match="holds 4 separate 2D images: give one of its files"):
        read_image(tmp_path)


def test_an_enhanced_file_is_sorted_and_rescaled_frame_by_frame(tmp_path: Path) -> None:
    stored = np.arange(3 * 4 * 5, dtype=np.uint16).reshape(3, 4, 5)
    file = read_image(write_enhanced(tmp_path / "a.dcm", stored, [4, 0, 2], slopes=[1, 2, 3]))
    np.testing.assert_array_equal(pixels(file), [stored[1] * 2, stored[2] * 3, stored[0]])
    assert file.pixels.GetSpacing() == (0.25, 0.5, 2)
    assert file.pixels.GetOrigin() == (1, 2, 0)
    even = write_enhanced(tmp_path / "b.dcm", stored, [0, 2, 4])
    np.testing.assert_array_equal(pixels(read_image(even)), by_gdcm(even))


def test_an_enhanced_file_of_two_phases(tmp_path: Path) -> None:
    stored = np.arange(4 * 4 * 5, dtype=np.uint16).reshape(4, 4, 5)
    with pytest.raises(RadllmError, match="several slices at one position"):
        read_image(write_enhanced(tmp_path / "a.dcm", stored, [0, 2, 0, 2]))


def test_an_ultrasound_clip(tmp_path: Path) -> None:
    clip = np.stack([NOISE.astype(np.uint8)] * 3)
    path = write_dicom(tmp_path / "clip.dcm", clip, NumberOfFrames=3, Modality="US")
    with pytest.raises(RadllmError, match=r"clip\.dcm holds 3 frames without a position: give one frame"):
        read_image(path)


def test_a_segmentation_object(tmp_path: Path) -> None:
    path = write_dicom(tmp_path / "seg.dcm", NOISE, Modality="SEG")
    with pytest.raises(RadllmError, match=r"seg\.dcm is a DICOM segmentation: .* export it as \.seg\.nrrd"):
        read_mask(path)


def test_objects_without_an_image(tmp_path: Path) -> None:
    path = write_dicom(tmp_path / "a.dcm", NOISE)
    dataset = pydicom.dcmread(path)
    del dataset.PixelData
    dataset.save_as(path)
    with pytest.raises(RadllmError, match=r"a\.dcm is damaged, or is no DICOM image"):
        read_image(path)
    del dataset.Rows
    dataset.save_as(path)
    with pytest.raises(RadllmError, match=r"a\.dcm holds no DICOM image"):
        read_image(path)


def test_an_empty_folder(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    (tmp_path / "scans").mkdir()
    monkeypatch.chdir(tmp_path / "scans")
    with pytest.raises(RadllmError, match="^scans holds no DICOM image"):
        read_image(".")
    with pytest.raises(RadllmError, match="holds no DICOM image: give an image, or the folder of one series"):
        read_image(tmp_path)


@pytest.mark.parametrize("kept", [0.95, 0.5, 0.02])
@pytest.mark.parametrize("syntax", SYNTAXES, ids=lambda uid: uid.name.split("(")[0].strip())
def test_truncated(tmp_path: Path, capfd: pytest.CaptureFixture[str], syntax: UID, kept: float) -> None:
    path = write_dicom(tmp_path / "a.dcm", NOISE, syntax=syntax)
    data = path.read_bytes()
    path.write_bytes(data[: int(len(data) * kept)])
    with pytest.raises(RadllmError, match=r"^a\.dcm .*: [^\n]*\.$"):
        read_image(path)
    assert capfd.readouterr().err == ""


def test_a_damaged_rle_frame(tmp_path: Path, capfd: pytest.CaptureFixture[str]) -> None:
    path = write_dicom(tmp_path / "a.dcm", NOISE, syntax=RLELossless)
    data = bytearray(path.read_bytes())
    data[-900:-800] = bytes(range(100, 200))
    path.write_bytes(data)
    with pytest.raises(RadllmError, match=r"a\.dcm is damaged"):
        read_image(path)
    assert capfd.readouterr().err == ""
