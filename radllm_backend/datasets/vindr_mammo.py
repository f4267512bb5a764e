"""VinDr-Mammo: full-field digital mammograms with findings boxed and assessed by radiologists.

Nguyen et al., *VinDr-Mammo: A large-scale benchmark dataset for computer-aided diagnosis in full-field digital
mammography*, Sci Data 10 (2023) 277; PhysioNet, version 1.0.0, doi 10.13026/br2v-7517, for credentialed users.
"""

from __future__ import annotations

import ast
import math
import re
from collections import Counter
from collections.abc import Collection
from functools import partial
from pathlib import Path
from typing import Annotated, Literal, NamedTuple

import typer

from radllm_backend.datasets.birads import PAPER_RULE, LabelRule
from radllm_backend.datasets.collecting import Manifest, UnusableLesionError, collect, image_header
from radllm_backend.datasets.flags import (
    ALL,
    BenignOption,
    DescriptorsOption,
    FindingsOption,
    MalignantOption,
    label_rule,
    words,
)
from radllm_backend.datasets.masks import DrawnKind, Size, clipped_box, write_box, write_grown
from radllm_backend.errors import RadllmError
from radllm_backend.features.descriptors import PREFIX, canonical
from radllm_backend.features.table import read_rows
from radllm_backend.records import Progress

MaskKind = Literal["grown", "box"]

TABLE = "finding_annotations.csv"
_EDGES = ("xmin", "ymin", "xmax", "ymax")
_COLUMNS = (
    *("study_id", "image_id", "laterality", "view_position", "breast_density", "split"),
    *("finding_categories", "finding_birads", *_EDGES),
)
_ID = re.compile(r"[0-9a-f]+")  # it becomes a file's name
_NO_FINDING = "No Finding"
_LESION_TYPES = {"Mass": "mass", "Suspicious Calcification": "calcification"}


class _Finding(NamedTuple):
    """One box of the table; an image can have several."""

    lesion: str
    categories: tuple[str, ...]
    cells: dict[str, str]


def manifest(
    root: Path,
    masks: Path,
    *,
    mask: MaskKind = "grown",
    rule: LabelRule = PAPER_RULE,
    categories: Collection[str] = (),
    descriptors: bool = False,
    progress: Progress | None = None,
) -> Manifest:
    """One row a finding with a box and a BI-RADS category that the rule knows.

    ``lesion`` is the image's ID and the finding's number in it, ``patient`` the study (each patient has one), ``label``
    follows from ``birads``, the finding's own category, and ``split`` is as published (``training``, ``test``).

    Args:
        root: the folder with ``finding_annotations.csv`` and the folder ``images``.
        masks: folder for the masks, made if missing; masks that are there already are used again.
        mask: ``box``, the box as far as it lies in the image, or ``grown``, the bright lesion inside it
            (`masks.write_grown`); ``mask_kind`` tells which one a lesion has.
        rule: which BI-RADS categories are benign and which malignant.
        categories: only findings of one of these (``Mass``, ``Suspicious Calcification`` ...); empty for all.
        descriptors: with what the radiologist says of lesion and breast (`descriptors.VOCABULARIES`).
        progress: told after each finding.

    Raises:
        RadllmError: the layout is another one, the table is malformed, or no finding can be used.
    """
    findings = _findings(root / TABLE)
    _check_known(categories, findings)
    wanted = [finding for finding in findings if not categories or set(finding.categories) & set(categories)]
    row = partial(_row, root=root, masks=masks, mask=mask, rule=rule, descriptors=descriptors)
    return collect(root, wanted, lambda finding: finding.lesion, row, progress)


def command(
    root: Annotated[Path, typer.Argument(help="Folder with finding_annotations.csv and the folder images.")],
    masks: Path,
    progress: Progress,
    mask: Annotated[MaskKind, typer.Option(help="The bright lesion inside the box, or the box itself.")] = "grown",
    findings: FindingsOption = ALL,
    benign: BenignOption = "3",
    malignant: MalignantOption = "4,5,6",
    descriptors: DescriptorsOption = False,
) -> Manifest:
    """VinDr-Mammo: mammograms with boxed findings; BI-RADS, by a rule, as label."""
    return manifest(
        root,
        masks,
        mask=mask,
        rule=label_rule(benign, malignant),
        categories=words(findings),
        descriptors=descriptors,
        progress=progress,
    )


def _findings(table: Path) -> list[_Finding]:
    """Every finding of the table; an image without one has a line too, which says so."""
    findings: list[_Finding] = []
    in_image: Counter[str] = Counter()
    for cells in read_rows(table, _COLUMNS):
        image = cells["image_id"]
        if not _ID.fullmatch(image):
            raise RadllmError(
                f"{table.name} has '{image[:40]}' as an image_id: use the hexadecimal one of the data set."
            )
        categories = _categories(cells["finding_categories"], image, table.name)
        if categories != (_NO_FINDING,):
            in_image[image] += 1
            findings.append(_Finding(f"{image}_{in_image[image]}", categories, cells))
    return findings


def _categories(text: str, image: str, table: str) -> tuple[str, ...]:
    """The words in a Python list in a string: ``['Suspicious Calcification', 'Mass']``."""
    try:
        words = ast.literal_eval(text)
    except (ValueError, SyntaxError, RecursionError, MemoryError, TypeError):
        words = None
    if not isinstance(words, list) or not words or not all(isinstance(word, str) for word in words):
        raise RadllmError(
            f"{table} has '{text[:40]}' as finding_categories of image {image}: use a list such as ['Mass']."
        )
    return tuple(words)


def _check_known(categories: Collection[str], findings: list[_Finding]) -> None:
    known = sorted({word for finding in findings for word in finding.categories})
    for word in categories:
        if word not in known:
            raise RadllmError(f"{TABLE} has no finding '{word[:40]}': it has {', '.join(known)}.")


def _row(
    finding: _Finding, root: Path, masks: Path, mask: MaskKind, rule: LabelRule, descriptors: bool
) -> dict[str, str]:
    cells = finding.cells
    label = rule.label(cells["finding_birads"])
    image = root / "images" / cells["study_id"] / f"{cells['image_id']}.dicom"
    path = masks / f"{finding.lesion}.png"
    kind = _write_mask(path, image, _corners(cells), mask)
    return {
        "lesion": finding.lesion,
        "image": str(image),
        "mask": str(path),
        "mask_kind": kind,
        "modality": "MG",
        "label": label,
        "patient": cells["study_id"],
        "view": cells["view_position"],
        "laterality": cells["laterality"],
        "split": cells["split"],
        "birads": cells["finding_birads"],
        "finding": "; ".join(finding.categories),
        **(_descriptors(finding) if descriptors else {}),
    }


def _descriptors(finding: _Finding) -> dict[str, str]:
    types = [_LESION_TYPES[word] for word in finding.categories if word in _LESION_TYPES]
    density = finding.cells["breast_density"].removeprefix("DENSITY ")
    return {
        f"{PREFIX}lesion_type": canonical("lesion_type", " and ".join(types)),
        f"{PREFIX}breast_density": canonical("breast_density", density),
    }


def _write_mask(path: Path, image: Path, corners: list[float], mask: MaskKind) -> DrawnKind:
    header = image_header(image)
    size = Size(header.rows, header.columns)
    box = clipped_box(corners, size)
    return write_box(path, size, box) if mask == "box" else write_grown(path, image, size, box)


def _corners(cells: dict[str, str]) -> list[float]:
    try:
        corners = [float(cells[edge]) for edge in _EDGES]
    except ValueError:
        corners = [math.nan]
    if not all(math.isfinite(edge) for edge in corners):
        raise UnusableLesionError("it has no box in pixels.")
    return corners
