"""Images from DICOM, lesions on them and a prediction, for the tests of the DICOM reports."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import SimpleITK as sitk
from pydicom.uid import RLELossless, UltrasoundImageStorage, UltrasoundMultiFrameImageStorage

from radllm_backend.imaging.image_files import read_image
from radllm_backend.imaging.lesion import Lesion
from radllm_backend.models.prediction import Caution, DescriptorShare, FeatureShare, ModelIdentity, Prediction
from radllm_backend.records import Extraction
from Testing.support.dicom_writing import write_dicom as write_image
from Testing.support.dicom_writing import write_slice

SIDE = 64
STUDY = {
    "StudyInstanceUID": "1.2.840.1",
    "StudyID": "7",
    "StudyDate": "20240229",
    "StudyTime": "101500",
    "AccessionNumber": "4711",
    "SeriesInstanceUID": "1.2.840.2",
    "PatientID": "P-1",
    "PatientName": "Hong^Gildong=洪^吉洞=홍^길동",
    "PatientBirthDate": "19700101",
    "PatientSex": "F",
    "SpecificCharacterSet": ["", "ISO 2022 IR 149"],
}
PLACED = {**STUDY, "FrameOfReferenceUID": "1.2.840.3"}
HASH = {name: f"{number:x}" * 64 for number, name in enumerate(("model", "base", "settings"), 1)}
VALUES = {
    "original_shape2D_Sphericity": 1 / 3,
    "original_shape2D_MajorAxisLength": 12.75,
    "original_glszm_ZonePercentage": 0.12345678901234567,
    "original_firstorder_Kurtosis": 1.5e-9,
    "wavelet-HL_glcm_ClusterShade": -123456789.123456,
}
CAUTIONS = (
    "The lesion has 9 pixels, fewer than any training lesion (≥ 12).",
    "The lesion reaches the edge of the image.",
)


def grey(*shape: int, seed: int = 0, dtype: type = np.uint16) -> np.ndarray:
    return np.random.default_rng(seed).integers(0, 250, shape).astype(dtype)


def lopsided_mask(*shape: int) -> np.ndarray:
    """Unlike its mirror images along every axis; empty on the first and the last slice."""
    mask = np.zeros(shape, np.uint8)
    mask[..., 20:40, 10:33] = 1
    mask[..., 20:26, 10:14] = 0
    if mask.ndim == 3:
        mask[0], mask[-1] = 0, 0
        for number, plane in enumerate(mask):
            plane[30 + number :] = 0
    return mask


def lesion_on(path: Path, series: str | None = None) -> Lesion:
    image = read_image(path, series)
    shape = sitk.GetArrayFromImage(image.pixels).shape
    mask = sitk.GetImageFromArray(lopsided_mask(*(shape if shape[0] != 1 else shape[1:])).reshape(shape))
    mask.CopyInformation(image.pixels)
    return Lesion.from_images(image.pixels, mask, modality=image.modality, spacing_known=image.spacing_known)


def prediction_of(lesion: Lesion) -> Prediction:
    shares = [
        FeatureShare(feature=name, name=name, value=value, standardised=0, training_percentile=50)
        for name, value in VALUES.items()
    ]
    return Prediction(
        probability=0.7312345678901234,
        call="likely malignant",
        threshold=0.45,
        logit=1.2,
        features=shares,
        descriptors=[
            DescriptorShare(descriptor="mass_shape", name="Mass Shape", value="oval"),
            DescriptorShare(descriptor="mass_margins", name="Mass Margins", value=""),
        ],
        cautions=[Caution(code=f"c{number}", text=text) for number, text in enumerate(CAUTIONS)],
        prompt="",
        model=ModelIdentity(
            name="test-model",
            sha256=HASH["model"],
            base_model="TestLM",
            base_sha256=HASH["base"],
            modality="MG",
            trained_on="40 lesions.",
        ),
        extraction=Extraction(
            preset="mammography",
            settings_sha256=HASH["settings"],
            versions={"pyradiomics": "3.1.4"},
            modality=lesion.modality,
            geometry=lesion.geometry,
            image_sha256=lesion.image_sha256,
            mask_sha256=lesion.mask_sha256,
        ),
        versions={"radllm_backend": "0.1.0"},
    )


def mammogram(path: Path, **elements: Any) -> Path:
    about = {"ImagerPixelSpacing": [0.07, 0.07], "PatientOrientation": ["A", "F"], **STUDY, **elements}
    return write_image(path, grey(SIDE, SIDE), **about)


def ultrasound_in_colour(path: Path) -> Path:
    about = {"PhotometricInterpretation": "RGB", "Modality": "US", "PatientOrientation": None, **STUDY}
    return write_image(path, grey(SIDE, SIDE, 3, dtype=np.uint8), sop_class=UltrasoundImageStorage, **about)


def ultrasound_clip_of_one_frame(path: Path) -> Path:
    about = {"NumberOfFrames": 1, "Modality": "US", "PixelSpacing": [0.1, 0.1], "PatientOrientation": None, **STUDY}
    return write_image(path, grey(1, SIDE, SIDE, dtype=np.uint8), sop_class=UltrasoundMultiFrameImageStorage, **about)


def one_ct_slice(path: Path) -> Path:
    return write_slice(path, grey(SIDE, SIDE), (1, 2, 3), **PLACED)


PICTURES: dict[str, Callable[[Path], Path]] = {
    "mammogram": mammogram,
    "compressed": lambda path: mammogram(path, syntax=RLELossless, PixelSpacing=[0.07, 0.07]),
    "negative": lambda path: mammogram(path, PhotometricInterpretation="MONOCHROME1", bits_stored=8),
    "with a frame of reference": lambda path: mammogram(path, FrameOfReferenceUID="1.2.840.3"),
    "ultrasound in colour": ultrasound_in_colour,
    "ultrasound clip": ultrasound_clip_of_one_frame,
    "one CT slice": one_ct_slice,
}


def ct_series(folder: Path, count: int = 6, angle: float = 0.4, **elements: Any) -> list[Path]:
    """Tilted slices under names in another order than their places; returns the files in that of their names."""
    folder.mkdir()
    down, normal = np.array([0, np.cos(angle), np.sin(angle)]), np.array([0, -np.sin(angle), np.cos(angle)])
    orientation = [float(f"{number:.9f}") for number in (1, 0, 0, *down)]
    for number in range(count):
        place = np.array([-10.5, 20, 30]) + number * 2.5 * normal
        about = {"ImageOrientationPatient": orientation, "RescaleIntercept": "-1024", "RescaleSlope": "1", **PLACED}
        write_slice(folder / f"{number * 37 % 11}.dcm", grey(SIDE, SIDE, seed=number), place, **{**about, **elements})
    return sorted(folder.iterdir())
