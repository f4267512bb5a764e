"""BrEaST (Breast-Lesions-USG): breast ultrasound images with radiologist-drawn lesion masks.

Pawłowska et al., *A Curated Benchmark Dataset for Ultrasound Based Breast Lesion Analysis*, The Cancer Imaging Archive,
2024, doi 10.7937/9WKK-Q141, CC BY 4.0.
"""

from __future__ import annotations

from pathlib import Path

from radllm_backend.errors import RadllmError
from radllm_backend.feature_table import read_rows

_COLUMNS = ("CaseID", "Image_filename", "Mask_tumor_filename", "Pixel_size", "Classification")


def manifest(root: Path) -> list[dict[str, str]]:
    """One row a lesion with a tumour mask: image, mask, spacing in mm, modality, label and patient.

    Args:
        root: the folder with the clinical table ``cases.csv`` and the folder ``images``. Each case is one patient.

    Raises:
        RadllmError: the layout is another one, or a file that the table names is missing.
    """
    rows = []
    for case in read_rows(root / "cases.csv", _COLUMNS):
        if case["Classification"] not in ("benign", "malignant") or not case["Mask_tumor_filename"]:
            continue  # 'normal' images have no lesion
        image, mask = (root / "images" / case[name] for name in ("Image_filename", "Mask_tumor_filename"))
        for path in (image, mask):
            if not path.is_file():
                raise RadllmError(f"cases.csv names {path.name}, which is not in the folder images: download it.")
        rows.append(
            {
                "lesion": f"case{int(case['CaseID']):03d}",
                "image": str(image),
                "mask": str(mask),
                "spacing_mm": _millimetres(case["Pixel_size"], case["CaseID"]),
                "modality": "US",
                "label": case["Classification"],
                "patient": case["CaseID"],
            }
        )
    return rows


def _millimetres(centimetres: str, case: str) -> str:
    """The table's ``Pixel_size`` is in cm per pixel."""
    try:
        return f"{float(centimetres) * 10:.8g}"
    except ValueError as error:
        raise RadllmError(f"cases.csv has '{centimetres}' as Pixel_size of case {case}: use a number in cm.") from error
