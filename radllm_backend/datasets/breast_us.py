"""BrEaST (Breast-Lesions-USG): breast ultrasound images with radiologist-drawn lesion masks.

Pawłowska et al., *A Curated Benchmark Dataset for Ultrasound Based Breast Lesion Analysis*, The Cancer Imaging Archive,
2024, doi 10.7937/9WKK-Q141, CC BY 4.0.
"""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer

from radllm_backend.datasets.collecting import Manifest
from radllm_backend.datasets.flags import AssessmentOption, DescriptorsOption, TablesOnlyOption
from radllm_backend.datasets.manifest import FILE_COLUMNS
from radllm_backend.errors import RadllmError
from radllm_backend.features.descriptors import PREFIX, canonical
from radllm_backend.features.table import read_rows

_COLUMNS = ("CaseID", "Image_filename", "Mask_tumor_filename", "Pixel_size", "Classification")
_DESCRIPTORS = {
    "mass_shape": "Shape",
    "mass_margins": "Margin",
    "echogenicity": "Echogenicity",
    "posterior_features": "Posterior_features",
    "halo": "Halo",
    "ultrasound_calcifications": "Calcifications",
    "skin_thickening": "Skin_thickening",
    "tissue_composition": "Tissue_composition",
}
_ASSESSMENT = {"birads_assessment": "BIRADS"}


def manifest(root: Path, *, descriptors: bool = False, assessment: bool = False) -> list[dict[str, str]]:
    """One row a lesion with a tumour mask: image, mask, spacing in mm, modality, label and patient.

    Args:
        root: the folder with the clinical table ``cases.csv`` and the folder ``images``. Each case is one patient.
        descriptors: with what the radiologist says of lesion and breast (`descriptors.VOCABULARIES`).
        assessment: with ``birads_assessment`` among these, the radiologist's own verdict.

    Raises:
        RadllmError: the layout is another one, a file that the table names is missing, or a descriptor has a word that
            is not in its vocabulary.
    """
    named = {**(_DESCRIPTORS if descriptors else {}), **(_ASSESSMENT if descriptors and assessment else {})}
    rows = []
    for case in read_rows(root / "cases.csv", (*_COLUMNS, *named.values())):
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
                **_described(case, named),
            }
        )
    return rows


def command(
    root: Annotated[Path, typer.Argument(help="Folder with cases.csv and the folder images.")],
    tables_only: TablesOnlyOption = False,
    descriptors: DescriptorsOption = False,
    assessment: AssessmentOption = False,
) -> Manifest:
    """BrEaST (Breast-Lesions-USG): breast ultrasound, pathology or follow-up as truth."""
    rows = manifest(root, descriptors=descriptors or assessment or tables_only, assessment=assessment)
    if not rows:
        raise RadllmError("cases.csv names no lesion with a mask: download the data set again.")
    if tables_only:
        rows = [{name: cell for name, cell in row.items() if name not in FILE_COLUMNS} for row in rows]
    return Manifest(rows, [])


def _described(case: dict[str, str], named: dict[str, str]) -> dict[str, str]:
    try:
        return {PREFIX + name: canonical(name, case[column]) for name, column in named.items()}
    except RadllmError as error:
        raise RadllmError(f"Case {case['CaseID']} of cases.csv: {error}") from error


def _millimetres(centimetres: str, case: str) -> str:
    """The table's ``Pixel_size`` is in cm per pixel."""
    try:
        return f"{float(centimetres) * 10:.8g}"
    except ValueError as error:
        raise RadllmError(f"cases.csv has '{centimetres}' as Pixel_size of case {case}: use a number in cm.") from error
