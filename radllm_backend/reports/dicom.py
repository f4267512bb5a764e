"""The report for a picture archive: the lesion's mask as a DICOM segmentation, the prediction as a structured report.

Both belong to the study that the image came from, by its UIDs. Who the patient is and when the study was, they say on
request only. Everything else in them is fixed words, numbers, codes, the model's name and its cautions; nothing comes
from the names of files and segments or from the rest of the image's header.
"""

from __future__ import annotations

import io
import logging
import warnings
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import highdicom as hd
import numpy as np
from highdicom import seg, sr
from highdicom.coding_schemes import CodingSchemeIdentificationItem
from pydicom.dataset import Dataset
from pydicom.sr.codedict import codes
from pydicom.sr.coding import Code
from pydicom.uid import generate_uid

from radllm_backend import __version__
from radllm_backend.errors import RadllmError
from radllm_backend.files import write_together
from radllm_backend.imaging.lesion import Lesion
from radllm_backend.models.base_in_words import base_in_words
from radllm_backend.models.prediction import RESEARCH_USE_ONLY, DescriptorShare, Prediction
from radllm_backend.records import Extraction, lesion_hash
from radllm_backend.reports.dicom_codes import (
    PERCENT,
    PRIVATE_SCHEME,
    PRIVATE_SCHEME_NAME,
    feature_code,
    private_code,
    unit_of,
)
from radllm_backend.reports.dicom_sources import LesionFrames, SourceFiles, read_source

SEGMENTATION, REPORT = "segmentation.dcm", "report.dcm"
PROBABILITY = codes.DCM.ProbabilityOfCancer
"""In percent, 0 to 100, as PS3.16 TID 4005 has it."""
CALL = Code(*private_code("call", "Call of the model"))
THRESHOLD = Code(*private_code("threshold", "Likely malignant from this probability on"))
CAUTION = Code(*private_code("caution", "Caution"))

_MAKER, _MODEL_NAME = "RadiomicsLLM", "radllm-backend"
_SEGMENTATION_TITLE = "RadiomicsLLM: the lesion as the model was given it"
_REPORT_TITLE = "RadiomicsLLM: prediction, for research use only"
_ANATOMICAL_DIRECTIONS = frozenset("LRAPHF")
_SERIES_NUMBERS = {SEGMENTATION: 9701, REPORT: 9702}  # far behind a scanner's own series

logging.getLogger("highdicom").setLevel(logging.ERROR)  # its warnings quote the patient's name


def write_dicom(
    folder: Path,
    files: SourceFiles,
    lesion: Lesion,
    prediction: Prediction,
    *,
    identifiers: bool = False,
) -> tuple[Path, Path]:
    """Write ``segmentation.dcm`` (DICOM SEG) and ``report.dcm`` (TID 1500 structured report): both or neither.

    Args:
        folder: must exist.
        files: those of the lesion's image: one with one frame (a mammogram, an ultrasound picture), one enhanced
            multi-frame file, or all slices of a series. For several lesions on an image, give the same each time.
        lesion: on the grid that the files give, as ``read_image`` reads them.
        prediction: the one of this lesion.
        identifiers: whether they carry the patient's name, ID and whatever else of the patient and the study highdicom
            copies: for the archive that the image is in. Without them these are empty.

    Returns:
        The two files.

    Raises:
        RadllmError: the image did not come from these files, they are gone or damaged or highdicom cannot refer to
            them, the prediction is of another lesion, or the folder cannot be written.
    """
    extraction = prediction.extraction
    hashes = (lesion.image_sha256, lesion.mask_sha256)
    if extraction is None or (extraction.image_sha256, extraction.mask_sha256) != hashes:
        raise RadllmError("The prediction is of another lesion than the one to be exported: classify this one first.")
    source = read_source(files, lesion)
    if not identifiers:
        source.forget_patient()
    with _refused(files.frames[0].file.name):
        identity = sr.TrackingIdentifier(
            uid=generate_uid(entropy_srcs=[_MAKER, lesion_hash(extraction)]),
            identifier=f"Lesion {lesion_hash(extraction)}",
        )
        segmentation = _segmentation(source, identity)
        report = _report(source, segmentation, _measurements(source, segmentation, identity, prediction, extraction))
        written = {SEGMENTATION: _bytes_of(segmentation), REPORT: _bytes_of(report)}
    try:
        write_together(folder, written)
    except OSError as error:
        raise RadllmError(
            f"The DICOM report cannot be written to {folder.name} ({error.strerror or error}): "
            "free some space or choose another folder."
        ) from error
    return folder / SEGMENTATION, folder / REPORT


@contextmanager
def _refused(name: str) -> Iterator[None]:
    """Turn what highdicom raises about a header into the one sentence, and show nobody the header's values."""
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore", UserWarning)  # what pydicom and highdicom remark on the header
            yield
    except Exception as error:
        raise RadllmError(
            f"The header of {name} breaks the DICOM standard ({type(error).__name__} in highdicom), "
            "so that nothing can refer to it: export the image again."
        ) from error


def _instance(title: str, file: str) -> dict[str, Any]:
    """What the two files say about themselves."""
    return {
        "series_instance_uid": hd.UID(),
        "series_number": _SERIES_NUMBERS[file],
        "series_description": title,
        "sop_instance_uid": hd.UID(),
        "instance_number": 1,
        "manufacturer": _MAKER,
        "manufacturer_model_name": _MODEL_NAME,
        "software_versions": __version__,
        "device_serial_number": __version__,
        "content_qualification": "RESEARCH",
    }


def _segmentation(source: LesionFrames, identity: sr.TrackingIdentifier) -> seg.Segmentation:
    description = seg.SegmentDescription(
        segment_number=1,
        segment_label="Lesion",
        segmented_property_category=codes.SCT.MorphologicallyAbnormalStructure,
        segmented_property_type=codes.SCT.Lesion,
        algorithm_type=seg.SegmentAlgorithmTypeValues.MANUAL,
        tracking_uid=identity[1].value,
        tracking_id=identity[0].value,
    )
    description.SegmentDescription = "The lesion as the model was given it; how it was drawn is not known."
    segmentation = seg.Segmentation(
        source_images=source.headers,
        pixel_array=source.mask,
        segmentation_type=seg.SegmentationTypeValues.BINARY,
        segment_descriptions=[description],
        content_description=_SEGMENTATION_TITLE,
        content_label="LESION",
        **_instance(_SEGMENTATION_TITLE, SEGMENTATION),
    )
    if not source.has_place:
        _leave_space(segmentation, source.headers[0])
    return segmentation


def _leave_space(segmentation: seg.Segmentation, header: Dataset) -> None:
    """Let a segmentation correspond to its picture pixel by pixel, by reference alone (PS3.3 A.51.5.1).

    A frame of reference would ask for a position, an orientation relative to the patient and a pixel size in the
    patient: a radiograph or an ultrasound picture has none of these, and none is made up.
    """
    segmentation.PatientOrientation = _orientation(header)
    segmentation.SharedFunctionalGroupsSequence[0].pop("PixelMeasuresSequence", None)
    for keyword in ("FrameOfReferenceUID", "PositionReferenceIndicator"):
        segmentation.pop(keyword, None)


def _orientation(header: Dataset) -> list[str] | None:
    """The anatomical directions of a radiograph's rows and columns; None where the header has anything else."""
    directions = [str(direction) for direction in np.atleast_1d(header.get("PatientOrientation") or [])]
    known = len(directions) == 2 and set("".join(directions)) <= _ANATOMICAL_DIRECTIONS
    return directions if known else None


def _measurements(
    source: LesionFrames,
    segmentation: seg.Segmentation,
    identity: sr.TrackingIdentifier,
    prediction: Prediction,
    extraction: Extraction,
) -> sr.VolumetricROIMeasurementsAndQualitativeEvaluations:
    """The one group of the report: the lesion, its features, what the model said of it, and its cautions."""
    evaluations = [sr.QualitativeEvaluation(name=CALL, value=Code(*private_code(prediction.call)))]
    evaluations += [_finding(share) for share in prediction.descriptors if share.value]
    group = sr.VolumetricROIMeasurementsAndQualitativeEvaluations(
        tracking_identifier=identity,
        referenced_segment=_reference(source, segmentation),
        finding_type=codes.SCT.Lesion,
        finding_category=codes.SCT.MorphologicallyAbnormalStructure,
        algorithm_id=_model(prediction),
        measurements=[*_features(prediction, extraction), *_probabilities(prediction)],
        qualitative_evaluations=evaluations,
    )
    texts = [(CAUTION, caution.text) for caution in prediction.cautions] + [(codes.DCM.Comment, RESEARCH_USE_ONLY)]
    for name, text in texts:
        group[0].ContentSequence.append(sr.TextContentItem(name, text, sr.RelationshipTypeValues.CONTAINS))
    return group


def _reference(source: LesionFrames, segmentation: seg.Segmentation) -> sr.ReferencedSegment:
    """Points to the segmentation and to every frame on which the lesion lies (highdicom finds one frame a file)."""
    images = [
        sr.SourceImageForSegmentation(header.SOPClassUID, header.SOPInstanceUID, frames)
        for header, frames in source.marked()
    ]
    return sr.ReferencedSegment(
        segmentation.SOPClassUID, segmentation.SOPInstanceUID, segment_number=1, source_images=images
    )


def _report(
    source: LesionFrames, segmentation: seg.Segmentation, group: sr.VolumetricROIMeasurementsAndQualitativeEvaluations
) -> sr.Comprehensive3DSR:
    content = sr.MeasurementReport(
        observation_context=sr.ObservationContext(observer_device_context=_observer()),
        procedure_reported=codes.SCT.ImagingProcedure,
        imaging_measurements=[group],
    )
    return sr.Comprehensive3DSR(
        evidence=[*source.headers, segmentation],
        content=content,
        is_complete=True,
        coding_schemes=[CodingSchemeIdentificationItem(PRIVATE_SCHEME, name=PRIVATE_SCHEME_NAME, version=__version__)],
        **_instance(_REPORT_TITLE, REPORT),
    )


def _observer() -> sr.ObserverContext:
    attributes = sr.DeviceObserverIdentifyingAttributes(
        uid=generate_uid(entropy_srcs=[_MAKER, _MODEL_NAME, __version__]),
        name=_MODEL_NAME,
        manufacturer_name=_MAKER,
        model_name=f"{_MODEL_NAME} {__version__}",
    )
    return sr.ObserverContext(observer_type=codes.DCM.Device, observer_identifying_attributes=attributes)


def _finding(share: DescriptorShare) -> sr.QualitativeEvaluation:
    """One of the radiologist's descriptors, as the model read it."""
    return sr.QualitativeEvaluation(
        name=Code(*private_code(share.descriptor, share.name)), value=Code(*private_code(share.value))
    )


def _features(prediction: Prediction, extraction: Extraction) -> list[sr.Measurement]:
    algorithm = sr.AlgorithmIdentification(
        name="PyRadiomics",
        version=extraction.versions.get("pyradiomics", "unknown"),
        parameters=[f"Settings {extraction.preset}, SHA-256 {extraction.settings_sha256}"],
    )
    return [
        sr.Measurement(
            name=Code(*feature_code(share.feature)),
            value=share.value,
            unit=Code(*unit_of(share.feature, extraction.geometry.spacing_known)),
            algorithm_id=algorithm,
        )
        for share in prediction.features
    ]


def _probabilities(prediction: Prediction) -> list[sr.Measurement]:
    return [
        sr.Measurement(name=name, value=100 * probability, unit=Code(*PERCENT))
        for name, probability in ((PROBABILITY, prediction.probability), (THRESHOLD, prediction.threshold))
    ]


def _model(prediction: Prediction) -> sr.AlgorithmIdentification:
    model = prediction.model
    return sr.AlgorithmIdentification(
        name=model.name,
        version=f"{_MODEL_NAME} {prediction.versions.get('radllm_backend', 'unknown')}",
        parameters=[
            f"Model SHA-256 {model.sha256}",
            f"Base model {base_in_words(model.base_model)}, SHA-256 {model.base_sha256}",
            prediction.rule(),
        ],
    )


def _bytes_of(dataset: Dataset) -> bytes:
    # highdicom describes the scanner here, with the institution's name.
    dataset.ContributingEquipmentSequence = [hd.ContributingEquipment.for_highdicom()]
    dataset.SpecificCharacterSet = "ISO_IR 192"  # UTF-8, whatever the source has
    buffer = io.BytesIO()
    dataset.save_as(buffer, enforce_file_format=True)
    return buffer.getvalue()
