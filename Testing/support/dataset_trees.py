"""Small trees in the published layouts of VinDr-Mammo, INbreast, CBIS-DDSM and BrEaST: real files, invented content.

For each data set, one function gives ordinary entries, which a test may change, and another writes them: masses that
are smooth where the entry is benign and spiculated where it is malignant.
"""

from __future__ import annotations

import csv
import io
import plistlib
import zlib
from collections.abc import Iterable, Sequence
from functools import cache
from pathlib import Path
from typing import Any

import numpy as np
from PIL import Image
from pydicom.dataset import Dataset, FileMetaDataset
from pydicom.uid import DigitalMammographyXRayImageStorageForPresentation, ExplicitVRLittleEndian, generate_uid
from scipy.spatial import ConvexHull

from radllm_backend.datasets.phantoms import make_phantom
from Testing.support.dicom_writing import write_dicom

SIZE = (200, 160)
SPACING_MM = 0.07
ROWS, COLUMNS = SIZE
VIEWS = ("CC", "MLO")

VINDR_HEADING = (
    *("study_id", "series_id", "image_id", "laterality", "view_position", "height", "width"),
    *("breast_birads", "breast_density", "finding_categories", "finding_birads"),
    *("xmin", "ymin", "xmax", "ymax", "split"),
)
INBREAST_HEADING = (
    "Patient ID",
    "Patient age",
    "Laterality",
    "View",
    "Acquisition date",
    "File Name",
    "ACR",
    "Bi-Rads",
)
CBIS_BEFORE = ("left or right breast", "image view", "abnormality id", "abnormality type")
CBIS_AFTER = (
    *("assessment", "pathology", "subtlety"),
    *("image file path", "cropped image file path", "ROI mask file path"),
)
MASS_HEADING = ("patient_id", "breast_density", *CBIS_BEFORE, "mass shape", "mass margins", *CBIS_AFTER)
CALC_HEADING = ("patient_id", "breast density", *CBIS_BEFORE, "calc type", "calc distribution", *CBIS_AFTER)


# --- pictures -------------------------------------------------------------------------------------------------------


@cache
def mammogram(malignant: bool, seed: int) -> tuple[np.ndarray, np.ndarray]:
    """Grey values of 12 bits and the lesion (bool), [rows, columns]: a phantom turned bright on dark."""
    phantom = make_phantom("spiculated" if malignant else "oval", seed=seed, size=SIZE)
    return (255 - phantom.image).astype(np.uint16) * 16, phantom.mask > 0


def box_around(mask: np.ndarray, margin: int = 6) -> tuple[float, float, float, float]:
    """xmin, ymin, xmax, ymax."""
    rows, columns = np.nonzero(mask)
    return (
        float(columns.min() - margin),
        float(rows.min() - margin),
        float(columns.max() + margin),
        float(rows.max() + margin),
    )


def outline(mask: np.ndarray) -> list[tuple[float, float]]:
    """A closed contour around the lesion: x and y of the corners of its convex hull."""
    points = np.argwhere(mask)[:, ::-1]
    return [(float(x), float(y)) for x, y in points[ConvexHull(points).vertices]]


def write_mammogram(path: Path, pixels: np.ndarray, spacing: float | None = SPACING_MM, **elements: Any) -> Path:
    path.parent.mkdir(parents=True, exist_ok=True)
    if spacing:
        elements["ImagerPixelSpacing"] = [spacing, spacing]
    bits = 12 if pixels.dtype == np.uint16 else 8
    return write_dicom(path, pixels, bits_stored=bits, **elements)


def write_header(path: Path, rows: int, columns: int) -> Path:
    """A DICOM file of a whole mammogram's size without its pixels: enough for a box or an outline."""
    path.parent.mkdir(parents=True, exist_ok=True)
    header = Dataset()
    header.file_meta = FileMetaDataset()
    header.file_meta.TransferSyntaxUID = ExplicitVRLittleEndian
    header.file_meta.MediaStorageSOPClassUID = header.SOPClassUID = DigitalMammographyXRayImageStorageForPresentation
    header.file_meta.MediaStorageSOPInstanceUID = header.SOPInstanceUID = generate_uid()
    header.Rows, header.Columns = rows, columns
    header.save_as(path, enforce_file_format=True)
    return path


def seed_of(name: str) -> int:
    return zlib.crc32(name.encode()) % 1000


# --- VinDr-Mammo ----------------------------------------------------------------------------------------------------


def vindr_rows(patients: int = 6) -> list[dict[str, str]]:
    """Lines of finding_annotations.csv: a mass in each view of the left breast, no finding in the right one."""
    rows = []
    for patient in range(patients):
        malignant = patient % 2 == 1
        for side in "LR":
            for view in VIEWS:
                rows.append(vindr_row(patient, side, view, malignant, "test" if patient >= patients * 2 // 3 else ""))
    return rows


def vindr_row(patient: int, side: str, view: str, malignant: bool, split: str = "") -> dict[str, str]:
    image = f"{patient:04x}{side == 'L':02d}{view == 'CC':02d}".ljust(32, "a")
    birads = f"BI-RADS {4 + patient % 4 // 2 if malignant else 3}"
    edges = box_around(mammogram(malignant, seed_of(image))[1])
    found = side == "L"
    return {
        "study_id": f"{patient:032x}",
        "series_id": f"{patient:031x}{side == 'L':d}",
        "image_id": image,
        "laterality": side,
        "view_position": view,
        "height": str(ROWS),
        "width": str(COLUMNS),
        "breast_birads": birads if found else "BI-RADS 1",
        "breast_density": f"DENSITY {'ABCD'[patient % 4]}",
        "finding_categories": "['Mass']" if found else "['No Finding']",
        "finding_birads": birads if found else "",
        **{name: str(edge) if found else "" for name, edge in zip(VINDR_HEADING[-5:-1], edges, strict=True)},
        "split": split or "training",
    }


def write_vindr(root: Path, rows: Sequence[dict[str, str]]) -> Path:
    """The tables and one image for each image_id; its lesion is malignant where its first line says BI-RADS 4 to 6."""
    images = {row["image_id"]: row for row in reversed(rows)}
    for image, row in images.items():
        pixels, _ = mammogram(row["breast_birads"][-1] in "456", seed_of(image))
        write_mammogram(root / "images" / row["study_id"] / f"{image}.dicom", pixels)
    _write_csv(root / "finding_annotations.csv", VINDR_HEADING, rows)
    breast = [name for name in VINDR_HEADING if not name.startswith(("finding", "x", "y"))]
    _write_csv(root / "breast-level_annotations.csv", breast, images.values())
    return root


# --- INbreast -------------------------------------------------------------------------------------------------------


def inbreast_images(patients: int = 6) -> list[dict[str, Any]]:
    """The images: two views of a breast each patient, with one mass, outlined."""
    return [
        inbreast_image(20_000_000 + 2 * patient + number, f"{patient:08x}6c613a14", view, patient % 2 == 1)
        for patient in range(patients)
        for number, view in enumerate(VIEWS)
    ]


def inbreast_image(number: int, patient: str, view: str, malignant: bool) -> dict[str, Any]:
    return {
        "number": number,
        "patient": patient,
        "side": "L",
        "view": view,
        "acr": str(1 + number % 4),
        "birads": ("4a", "4b", "4c", "5", "6")[number % 5] if malignant else "3",
        "rois": [("Mass", outline(mammogram(malignant, seed_of(str(number)))[1]))],
    }


def write_inbreast(root: Path, images: Sequence[dict[str, Any]]) -> Path:
    """The table as the data set has it (``;``, blanks, an empty line), the DICOM files and the outlines."""
    lines = [";".join(INBREAST_HEADING)]
    for image in images:
        pixels, _ = mammogram(image["birads"][:1] in "456", seed_of(str(image["number"])))
        short = {"MLO": "ML"}.get(image["view"], image["view"])
        name = f"{image['number']}_{image['patient']}_MG_{image['side']}_{short}_ANON.dcm"
        write_mammogram(root / "AllDICOMs" / name, pixels)
        cells = ("removed", "removed", image["side"], image["view"], "201001", str(image["number"]), image["acr"])
        lines.append(";".join([*cells, image["birads"]]) + "  ")
        if image["rois"]:
            write_outlines(root / "AllXML" / f"{image['number']}.xml", image["rois"])
    (root / "INbreast.csv").write_text("\r\n".join([*lines, ";" * 7, ""]), encoding="utf-8", newline="")
    return root


def write_outlines(path: Path, rois: Sequence[tuple[str, Sequence[tuple[float, float]]]]) -> None:
    """An XML file as OsiriX exports regions."""
    regions = [
        {
            "IndexInImage": index,
            "Name": name,
            "NumberOfPoints": len(points),
            "Point_mm": ["(0.0, 0.0, 0.0)"] * len(points),
            "Point_px": [f"({x:f}, {y:f})" for x, y in points],
        }
        for index, (name, points) in enumerate(rois)
    ]
    path.parent.mkdir(parents=True, exist_ok=True)
    content = {"Images": [{"ImageIndex": 0, "NumberOfROIs": len(regions), "ROIs": regions}]}
    path.write_bytes(plistlib.dumps(content))


# --- CBIS-DDSM ------------------------------------------------------------------------------------------------------


def cbis_rows(patients: int = 6, kind: str = "mass") -> list[dict[str, str]]:
    """Lines of a kind's tables: one abnormality in two views each patient, the last third of them in the test part."""
    first = 1 if kind == "mass" else 501
    return [
        cbis_row(first + patient, view, patient % 2 == 1, kind, test=patient >= patients * 2 // 3)
        for patient in range(patients)
        for view in VIEWS
    ]


def cbis_row(
    patient: int, view: str, malignant: bool, kind: str = "mass", *, number: int = 1, test: bool = False
) -> dict[str, str]:
    image = f"{'Mass' if kind == 'mass' else 'Calc'}-{'Test' if test else 'Training'}_P_{patient:05d}_LEFT_{view}"
    lesion = f"{image}_{number}"
    whole, uid = (f"1.3.6.1.4.1.9590.100.1.2.{zlib.crc32(name.encode())}" for name in (image, lesion))
    mass = {"mass shape": "IRREGULAR" if malignant else "OVAL", "mass margins": "SPICULATED-ILL_DEFINED"}
    calcification = {"calc type": "PLEOMORPHIC", "calc distribution": "CLUSTERED" if malignant else "N/A"}
    return {
        "patient_id": f"P_{patient:05d}",
        "breast_density" if kind == "mass" else "breast density": str(1 + patient % 4),
        "left or right breast": "LEFT",
        "image view": view,
        "abnormality id": str(number),
        "abnormality type": kind,
        **(mass if kind == "mass" else calcification),
        "assessment": "4" if malignant else "2",
        "pathology": "MALIGNANT" if malignant else ("BENIGN", "BENIGN_WITHOUT_CALLBACK")[patient // 2 % 2],
        "subtlety": str(1 + patient % 5),
        "image file path": f"{image}/{whole}.1/{whole}.2/000000.dcm",
        "cropped image file path": f"{lesion}/{uid}.3/{uid}.4/000000.dcm",
        "ROI mask file path": f"{lesion}/{uid}.3/{uid}.4/000001.dcm",
    }


def write_cbis_tables(root: Path, rows: Iterable[dict[str, str]]) -> list[Path]:
    """The tables of these lines, with stray newlines in the last path, as published."""
    parts: dict[str, list[dict[str, str]]] = {}
    for row in rows:
        kind, split = row["ROI mask file path"].split("_")[0].lower().split("-")
        name = f"{kind}_case_description_{'train' if split == 'training' else 'test'}_set.csv"
        stray = {"ROI mask file path": row["ROI mask file path"] + "\n"}
        parts.setdefault(name, []).append({**row, **stray})
    root.mkdir(parents=True, exist_ok=True)
    for name, lines in parts.items():
        _write_csv(root / name, MASS_HEADING if name.startswith("mass") else CALC_HEADING, lines, end="\r\n")
    return [root / name for name in parts]


def write_cbis(root: Path, rows: Sequence[dict[str, str]]) -> Path:
    """Tables and images under the names that the archive gives them now: of mask and crop, either can be the first."""
    for number, row in enumerate(rows):
        image, roi = (Path(row[f"{what} file path"]).parent for what in ("image", "ROI mask"))
        pixels, mask = cbis_pictures(row)
        write_mammogram(root / "CBIS-DDSM" / image / "1-1.dcm", pixels, spacing=None, SeriesInstanceUID=image.name)
        left, top, right, bottom = (int(edge) for edge in box_around(mask, margin=2))
        pictures = [(mask * 255).astype(np.uint8), pixels[top:bottom, left:right]]
        for name, picture in zip(("1-1.dcm", "1-2.dcm"), pictures[:: 1 if number % 2 else -1], strict=True):
            write_mammogram(root / "CBIS-DDSM" / roi / name, picture, spacing=None, SeriesInstanceUID=roi.name)
    write_cbis_tables(root, rows)
    return root


def cbis_pictures(row: dict[str, str]) -> tuple[np.ndarray, np.ndarray]:
    """The mammogram and the lesion; further abnormalities of an image lie elsewhere in it."""
    image = row["image file path"].split("/")[0]
    pixels, mask = mammogram(row["pathology"] == "MALIGNANT", seed_of(image))
    return pixels, np.roll(mask, 10 * (int(row["abnormality id"]) - 1), axis=0)


# --- BrEaST -----------------------------------------------------------------------------------------------------------


def breast_us_cases(patients: int = 12) -> list[dict[str, str]]:
    """Lines of cases.csv: a lesion each."""
    return [breast_us_case(1 + patient, patient % 2 == 1) for patient in range(patients)]


def breast_us_case(number: int, malignant: bool) -> dict[str, str]:
    return {
        "CaseID": str(number),
        "Image_filename": f"case{number:03d}.png",
        "Mask_tumor_filename": f"case{number:03d}_tumor.png",
        "Pixel_size": "0.008",
        "Tissue_composition": ("not available", "lactating&homogeneous: fibroglandular")[number // 2 % 2],
        "Shape": "irregular" if malignant else "oval",
        "Margin": "not circumscribed - angular&indistinct" if malignant else "circumscribed",
        "Echogenicity": "complex cystic/solid" if malignant else "hypoechoic",
        "Posterior_features": "combined" if malignant else "no",
        "Halo": "yes" if malignant else "no",
        "Calcifications": "in a mass" if malignant else "no",
        "Skin_thickening": "no",
        "BIRADS": "4c" if malignant else "3",
        "Classification": "malignant" if malignant else "benign",
    }


def write_breast_us(root: Path, cases: Sequence[dict[str, str]]) -> Path:
    """The table, and an image and a mask for each case that names them."""
    (root / "images").mkdir(parents=True, exist_ok=True)
    for case in cases:
        kind = "spiculated" if case["Classification"] == "malignant" else "oval"
        phantom = make_phantom(kind, seed=int(case["CaseID"]), size=SIZE)
        Image.fromarray(phantom.image).save(root / "images" / case["Image_filename"])
        if case["Mask_tumor_filename"]:
            Image.fromarray(phantom.mask).save(root / "images" / case["Mask_tumor_filename"])
    _write_csv(root / "cases.csv", list(cases[0]), cases)
    return root


def _write_csv(path: Path, heading: Sequence[str], rows: Iterable[dict[str, str]], end: str = "\n") -> None:
    buffer = io.StringIO()
    writer = csv.DictWriter(buffer, heading, extrasaction="ignore", lineterminator=end)
    writer.writeheader()
    writer.writerows(rows)
    path.write_text(buffer.getvalue(), encoding="utf-8", newline="")
