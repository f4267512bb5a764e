"""INbreast: full-field digital mammograms with lesions outlined in OsiriX.

Moreira et al., *INbreast: toward a full-field digital mammographic database*, Acad Radiol 19 (2012) 236-248, given out
by its authors under an agreement.
"""

from __future__ import annotations

import csv
import math
import plistlib
import re
from collections.abc import Collection
from functools import partial
from pathlib import Path
from typing import Annotated, NamedTuple
from xml.parsers.expat import ExpatError

import typer

from radllm_backend.datasets.birads import PAPER_RULE, LabelRule
from radllm_backend.datasets.collecting import Manifest, UnusableLesionError, collect, image_header
from radllm_backend.datasets.flags import (
    BenignOption,
    DescriptorsOption,
    FindingsOption,
    MalignantOption,
    label_rule,
    words,
)
from radllm_backend.datasets.masks import Size, write_contour
from radllm_backend.errors import RadllmError
from radllm_backend.features.descriptors import PREFIX, canonical
from radllm_backend.records import Progress

TABLE = "INbreast.csv"
_COLUMNS = ("Laterality", "View", "File Name", "ACR", "Bi-Rads")
_IMAGE = re.compile(r"(?P<number>\d+)_(?P<patient>[0-9a-f]+)_MG_[LR]_[A-Z]+_ANON\.dcm", re.IGNORECASE)
_POINT = re.compile(r"\(\s*([-+.\deE]+)\s*,\s*([-+.\deE]+)\s*\)")
_FARTHEST = 1e6  # pixels: more is no point of an image
_FEWEST_POINTS = 3
_LESION_TYPES = {"mass": "mass", "calcification": "calcification", "cluster": "calcification"}


class _Image(NamedTuple):
    """A DICOM file of AllDICOMs, whose name has the image's number and a hash that stands for the patient."""

    path: Path
    patient: str


class _Roi(NamedTuple):
    """One outlined region of an image, and the image's line in the table."""

    lesion: str
    name: str
    points: list[tuple[float, float]]
    cells: dict[str, str]


def manifest(
    root: Path,
    masks: Path,
    *,
    rule: LabelRule = PAPER_RULE,
    findings: Collection[str] = ("Mass",),
    descriptors: bool = False,
    progress: Progress | None = None,
) -> Manifest:
    """One row an outlined region of an image whose BI-RADS category the rule knows.

    ``lesion`` is the image's number and the region's number in it, ``patient`` the hash in the image's file name (the
    table says only 'removed'), and ``label`` follows from ``birads``, the image's category, which all of its regions
    share. Regions of one or two points mark single calcifications: they have no extent and are left out.

    Args:
        root: the folder with ``INbreast.csv`` and the folders ``AllDICOMs`` and ``AllXML``.
        masks: folder for the masks, made if missing; masks that are there already are used again.
        rule: which BI-RADS categories are benign and which malignant.
        findings: only regions with one of these names, in any case, plural or not; empty for all (thousands are
            single calcifications).
        descriptors: with what the radiologist says of lesion and breast (`descriptors.VOCABULARIES`).
        progress: told after each region.

    Raises:
        RadllmError: the layout is another one, a file is malformed, or no region can be used.
    """
    images = _images(root / "AllDICOMs")
    regions = [roi for cells in _cases(root) for roi in _rois(root / "AllXML" / f"{cells['File Name']}.xml", cells)]
    _check_known(findings, regions)
    wanted = {_singular(name) for name in findings}
    chosen = [roi for roi in regions if not wanted or _singular(roi.name) in wanted]
    row = partial(_row, images=images, masks=masks, rule=rule, descriptors=descriptors)
    return collect(root, chosen, lambda roi: roi.lesion, row, progress)


def command(
    root: Annotated[Path, typer.Argument(help="Folder with INbreast.csv and the folders AllDICOMs and AllXML.")],
    masks: Path,
    progress: Progress,
    findings: FindingsOption = "Mass",
    benign: BenignOption = "3",
    malignant: MalignantOption = "4,5,6",
    descriptors: DescriptorsOption = False,
) -> Manifest:
    """INbreast: mammograms with outlined regions; BI-RADS, by a rule, as label."""
    return manifest(
        root,
        masks,
        rule=label_rule(benign, malignant),
        findings=words(findings),
        descriptors=descriptors,
        progress=progress,
    )


def _check_known(findings: Collection[str], regions: list[_Roi]) -> None:
    known = {_singular(roi.name): roi.name for roi in regions}
    for name in findings:
        if _singular(name) not in known:
            raise RadllmError(
                f"AllXML has no region '{name[:40]}': it has {', '.join(sorted(known.values())) or 'none'}."
            )


def _images(folder: Path) -> dict[str, _Image]:
    """The DICOM files of the folder by the images' numbers."""
    if not folder.is_dir():
        raise RadllmError(f"There is no folder {folder.name} in {folder.parent.name}: give INbreast's own folder.")
    names = [(path, _IMAGE.fullmatch(path.name)) for path in sorted(folder.iterdir())]
    return {name["number"]: _Image(path, name["patient"]) for path, name in names if name}


def _cases(root: Path) -> list[dict[str, str]]:
    """The table's lines without the blanks around each cell; empty lines do not count."""
    table = root / TABLE
    if not table.is_file():
        spreadsheet = (root / "INbreast.xls").is_file()
        todo = f"save INbreast.xls as {TABLE}, separated by semicolons" if spreadsheet else "check the path"
        raise RadllmError(f"There is no table {TABLE} in {root.name}: {todo}.")
    try:
        lines = table.read_text(encoding="utf-8-sig").splitlines()
        separator = ";" if ";" in lines[0] else ","  # a spreadsheet program may have saved it with commas
        rows = [[cell.strip() for cell in row] for row in csv.reader(lines, delimiter=separator)]
    except (UnicodeDecodeError, csv.Error, IndexError) as error:
        raise RadllmError(f"{TABLE} is not a UTF-8 CSV file: save the table as CSV again.") from error
    for name in _COLUMNS:
        if name not in rows[0]:
            raise RadllmError(f"{TABLE} has no column '{name}': it has {', '.join(rows[0])}.")
    cases = [dict(zip(rows[0], row, strict=False)) for row in rows[1:] if any(row)]
    for number, cells in enumerate(cases, start=1):
        if not set(_COLUMNS) <= set(cells) or not cells["File Name"].isdecimal():
            raise RadllmError(f"{TABLE} has no image's number in the 'File Name' of image {number}: mend the line.")
    return cases


def _rois(path: Path, cells: dict[str, str]) -> list[_Roi]:
    """The regions outlined in an image; none where it has no XML file, as images without findings do not."""
    if not path.is_file():
        return []
    try:
        # Apple's parser of the standard library: it refuses every entity declaration and fetches nothing.
        content = plistlib.loads(path.read_bytes(), fmt=plistlib.FMT_XML)
        regions = [(roi["Name"], roi["Point_px"]) for image in content["Images"] for roi in image["ROIs"]]
        outlines = [(str(name).strip(), [_point(text) for text in texts]) for name, texts in regions]
    except (plistlib.InvalidFileException, ExpatError, ValueError, KeyError, TypeError, AttributeError) as error:
        raise RadllmError(f"{path.name} holds no regions as OsiriX exports them: copy it again.") from error
    return [
        _Roi(f"{cells['File Name']}_{number}", name, points, cells)
        for number, (name, points) in enumerate(outlines, start=1)
    ]


def _point(text: str) -> tuple[float, float]:
    """x and y of a string ``(580.0, 700.0)``, in pixels."""
    found = _POINT.fullmatch(text.strip())
    if not found:
        raise ValueError("no point")
    x, y = float(found[1]), float(found[2])
    if not math.hypot(x, y) < _FARTHEST:
        raise ValueError("a point out of reach")
    return x, y


def _row(roi: _Roi, images: dict[str, _Image], masks: Path, rule: LabelRule, descriptors: bool) -> dict[str, str]:
    cells = roi.cells
    label = rule.label(cells["Bi-Rads"])
    if len(roi.points) < _FEWEST_POINTS:
        raise UnusableLesionError(f"its region '{roi.name}' has {len(roi.points)} points, which outline nothing.")
    if cells["File Name"] not in images:
        raise UnusableLesionError("its image is not in AllDICOMs: copy it there.")
    image = images[cells["File Name"]]
    header = image_header(image.path)
    path = masks / f"{roi.lesion}.png"
    return {
        "lesion": roi.lesion,
        "image": str(image.path),
        "mask": str(path),
        "mask_kind": write_contour(path, Size(header.rows, header.columns), roi.points),
        "modality": "MG",
        "label": label,
        "patient": image.patient,
        "view": cells["View"],
        "laterality": cells["Laterality"],
        "birads": cells["Bi-Rads"],
        "finding": roi.name,
        **(_descriptors(roi) if descriptors else {}),
    }


def _descriptors(roi: _Roi) -> dict[str, str]:
    return {
        f"{PREFIX}lesion_type": canonical("lesion_type", _LESION_TYPES.get(_singular(roi.name), "")),
        f"{PREFIX}breast_density": canonical("breast_density", roi.cells["ACR"]),
    }


def _singular(name: str) -> str:
    """A region's name in lower case without the plural's s: 'Calcifications' is 'calcification', 'Mass' stays."""
    return re.sub("(?<!s)s$", "", name.strip().casefold())
