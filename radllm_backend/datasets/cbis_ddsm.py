"""CBIS-DDSM: digitised film mammograms with outlined lesions, the radiologist's descriptors, and pathology as truth.

Lee et al., *A curated mammography data set for use in computer-aided detection and diagnosis research*, Sci Data 4
(2017) 170177; The Cancer Imaging Archive, doi 10.7937/K9/TCIA.2016.7O02S9CY, CC BY 3.0.
"""

from __future__ import annotations

import re
from collections.abc import Collection, Mapping, Sequence
from functools import partial
from pathlib import Path, PurePosixPath
from typing import Annotated, Literal, NamedTuple, get_args

import numpy as np
import SimpleITK as sitk
import typer
from numpy.typing import NDArray

from radllm_backend.datasets.collecting import Header, Manifest, UnusableLesionError, collect, image_header
from radllm_backend.datasets.flags import ALL, AssessmentOption, DescriptorsOption, TablesOnlyOption
from radllm_backend.datasets.masks import Size, write_scaled
from radllm_backend.errors import RadllmError
from radllm_backend.features.descriptors import PREFIX, canonical
from radllm_backend.features.table import read_rows
from radllm_backend.imaging.image_files import read_mask
from radllm_backend.records import Progress

AbnormalityType = Literal["mass", "calcification"]
ABNORMALITY_TYPES: tuple[AbnormalityType, ...] = get_args(AbnormalityType)

_TABLES = "*_case_description_*_set.csv"
_IMAGE, _CROP, _ROI = "image file path", "cropped image file path", "ROI mask file path"
_COLUMNS = (
    *("patient_id", "left or right breast", "image view", "abnormality type", "assessment", "pathology", "subtlety"),
    *(_IMAGE, _CROP, _ROI),
)
_DESCRIPTORS = {
    "lesion_type": ("abnormality type",),
    "mass_shape": ("mass shape",),
    "mass_margins": ("mass margins",),
    "calcification_type": ("calc type",),
    "calcification_distribution": ("calc distribution",),
    "breast_density": ("breast_density", "breast density"),  # the calcifications' tables have a blank
    "subtlety": ("subtlety",),
}
"""Each descriptor's column; a table has those of its own kind of lesion."""
_LABELS = {"BENIGN": "benign", "BENIGN_WITHOUT_CALLBACK": "benign", "MALIGNANT": "malignant"}
_SPLITS = {"Training": "training", "Test": "test"}
_FOLDER = re.compile(r"(?:Mass|Calc)-(?P<split>Training|Test)_P_\d+_(?:LEFT|RIGHT)_(?:CC|MLO)_\d+")
_SAME_SHAPE = 0.005  # by how much a mask's height and width may be scaled differently


class _Abnormality(NamedTuple):
    """One line of a table."""

    lesion: str
    """Its folder in the archive: ``Mass-Training_P_00001_LEFT_CC_1``."""
    cells: dict[str, str]
    known: dict[str, str]
    """Label, patient, view, laterality, split."""
    descriptors: dict[str, str]


def find_tables(root: Path) -> list[Path]:
    """The tables ``{mass,calc}_case_description_{train,test}_set.csv`` in a folder; RadllmError where there is none."""
    tables = sorted(root.glob(_TABLES))
    if not tables:
        raise RadllmError(f"{root.name} has no table {_TABLES}: download the tables there.")
    return tables


def tabulate(
    tables: Sequence[Path], *, kinds: Collection[AbnormalityType] = ABNORMALITY_TYPES, assessment: bool = False
) -> list[dict[str, str]]:
    """The lesions as the radiologist described them, without images: one row an abnormality in a view.

    ``label`` is the pathology (``BENIGN_WITHOUT_CALLBACK`` is benign), ``split`` the table's. Masses and calcifications
    were split apart from each other: a patient can be in the training part of one and in the test part of the other.

    Args:
        tables: ``{mass,calc}_case_description_{train,test}_set.csv``, any of them.
        kinds: masses, calcifications or both.
        assessment: with the descriptor ``birads_assessment``, the reader's own verdict.

    Raises:
        RadllmError: a table is missing, malformed, or has a word that is not in the vocabulary; none of these kinds.
    """
    wanted = _abnormalities(tables, kinds, assessment)
    if not wanted:
        raise RadllmError(f"The tables name no {' and no '.join(kinds)}: give the tables of that kind.")
    return [{"lesion": one.lesion, **one.known, **one.descriptors} for one in wanted]


def manifest(
    root: Path,
    masks: Path,
    *,
    tables: Sequence[Path] = (),
    kinds: Collection[AbnormalityType] = ABNORMALITY_TYPES,
    descriptors: bool = False,
    assessment: bool = False,
    progress: Progress | None = None,
) -> Manifest:
    """One row an abnormality in a view; pathology is the label.

    The archive's files bear other names than the tables say, and a lesion's mask and its cropped image often each
    other's: every DICOM file in the lesion's folder is looked at, and the mask is the one with two values and the
    image's shape. Some masks have another size than their image (4386 × 1789 pixels for 5041 × 2056): where height and
    width differ by the same factor they are scaled, into `masks`; any other is left out. No pixel size is known.

    Args:
        root: the folder ``CBIS-DDSM`` or the one above it, with one folder a patient, side, view and abnormality.
        masks: folder for the scaled masks, made if missing.
        tables: as in `tabulate`; by default those in `root`.
        kinds: masses, calcifications or both. A split over both can have a patient in both parts: see `tabulate`.
        descriptors: with what the radiologist says of the lesion (`descriptors.VOCABULARIES`).
        assessment: with ``birads_assessment`` among these.
        progress: told after each lesion.

    Raises:
        RadllmError: as `tabulate`; no lesion can be used.
    """
    wanted = _abnormalities(tables or find_tables(root), kinds, assessment)
    images = root / "CBIS-DDSM" if (root / "CBIS-DDSM").is_dir() else root
    row = partial(_row, root=images, masks=masks, descriptors=descriptors)
    return collect(root, wanted, lambda one: one.lesion, row, progress)


def command(
    root: Annotated[Path, typer.Argument(help="Folder with the ..._case_description_..._set.csv and the images.")],
    masks: Path,
    progress: Progress,
    kind: Annotated[
        Literal["all", "mass", "calcification"], typer.Option(help="Masses, calcifications or both.")
    ] = ALL,
    tables_only: TablesOnlyOption = False,
    descriptors: DescriptorsOption = False,
    assessment: AssessmentOption = False,
) -> Manifest:
    """CBIS-DDSM: digitised film mammograms with outlined lesions; pathology as truth."""
    kinds = ABNORMALITY_TYPES if kind == ALL else (kind,)
    if tables_only:
        return Manifest(tabulate(find_tables(root), kinds=kinds, assessment=assessment), [])
    return manifest(
        root,
        masks,
        kinds=kinds,
        descriptors=descriptors or assessment,
        assessment=assessment,
        progress=progress,
    )


def _abnormalities(tables: Sequence[Path], kinds: Collection[AbnormalityType], assessment: bool) -> list[_Abnormality]:
    named = {**_DESCRIPTORS, **({"birads_assessment": ("assessment",)} if assessment else {})}
    found = [_abnormality(cells, named, table.name) for table in tables for cells in read_rows(table, _COLUMNS)]
    return [one for one in found if one.descriptors[f"{PREFIX}lesion_type"] in kinds]


def _abnormality(cells: dict[str, str], named: Mapping[str, tuple[str, ...]], table: str) -> _Abnormality:
    lesion = _folder(cells[_ROI])
    place = _FOLDER.fullmatch(lesion)
    if not place:
        raise RadllmError(
            f"{table} has '{lesion[:60]}' as a lesion's folder in '{_ROI}': download the table again, unchanged."
        )
    if cells["pathology"] not in _LABELS:
        raise RadllmError(
            f"{table} has '{cells['pathology'][:40]}' as pathology of {lesion}: use one of {', '.join(_LABELS)}."
        )
    known = {
        "label": _LABELS[cells["pathology"]],
        "patient": cells["patient_id"],
        "view": cells["image view"],
        "laterality": cells["left or right breast"][:1],
        "split": _SPLITS[place["split"]],
    }
    try:
        return _Abnormality(lesion, cells, known, _descriptors(cells, named))
    except RadllmError as error:
        raise RadllmError(f"{lesion} in {table}: {error}") from error


def _descriptors(cells: dict[str, str], named: Mapping[str, tuple[str, ...]]) -> dict[str, str]:
    """Every descriptor, empty where it is not one of this kind of lesion."""
    given = {name: [cells[column] for column in columns if column in cells] for name, columns in named.items()}
    if not given["breast_density"]:
        raise RadllmError("the table has no column 'breast_density' or 'breast density': download it again.")
    return {PREFIX + name: canonical(name, texts[0]) if texts else "" for name, texts in given.items()}


def _row(one: _Abnormality, root: Path, masks: Path, descriptors: bool) -> dict[str, str]:
    image = _image(root, one)
    mask, kind = _mask(root, one, image, masks)
    return {
        "lesion": one.lesion,
        "image": str(image),
        "mask": str(mask),
        "mask_kind": kind,
        "modality": "MG",
        **one.known,
        "birads": one.cells["assessment"],
        **(one.descriptors if descriptors else {}),
    }


def _image(root: Path, one: _Abnormality) -> Path:
    files = _files(root / _folder(one.cells[_IMAGE]))
    if not files:
        raise UnusableLesionError("its image is not there: download it.")
    return _one(files, one.cells[_IMAGE], "image")


def _mask(root: Path, one: _Abnormality, image: Path, masks: Path) -> tuple[Path, str]:
    """The lesion's mask, and how it came about."""
    size = _size(image_header(image))
    folders = dict.fromkeys(root / _folder(one.cells[name]) for name in (_ROI, _CROP))
    files = [path for folder in folders for path in _files(folder)]
    sizes = {path: _size(image_header(path)) for path in files}
    exact = [path for path in files if sizes[path] == size]
    similar = [path for path in files if sizes[path] != size and _same_shape(sizes[path], size)]
    for alike in (exact, similar):
        binary = {path: mask for path in alike if (mask := _binary(path)) is not None}
        if binary:
            file = _one(list(binary), one.cells[_ROI], "mask")
            if file in exact:
                return file, "published"
            scaled = masks / f"{one.lesion}.png"
            return scaled, write_scaled(scaled, binary[file], size, f"{file.parent.name}/{file.name}")
    found = ", ".join(f"{file.name} of {rows} x {columns}" for file, (rows, columns) in sizes.items()) or "nothing"
    raise UnusableLesionError(
        f"no mask in the shape of its image of {size.rows} x {size.columns} pixels is there, but {found}."
    )


def _files(folder: Path) -> list[Path]:
    return sorted(folder.rglob("*.dcm"))


def _one(files: list[Path], published: str, what: str) -> Path:
    """The only file, or the one of the series that the table names."""
    if len(files) == 1:
        return files[0]
    series = PurePosixPath(published).parent.name
    named = [path for path in files if image_header(path).series == series]
    if len(named) != 1:
        raise UnusableLesionError(f"{len(files)} files could be its {what}: keep the one that belongs to it.")
    return named[0]


def _binary(path: Path) -> NDArray[np.bool_] | None:
    """The mask in a file, or None where the file holds a picture or marks no area."""
    try:
        values = sitk.GetArrayFromImage(read_mask(path).pixels).squeeze()
    except RadllmError as error:
        raise UnusableLesionError(str(error)) from error
    inside = values == values.max()
    is_mask = not inside.all() and (inside | (values == 0)).all()
    return inside if is_mask and min(inside.any(axis=0).sum(), inside.any(axis=1).sum()) > 1 else None


def _same_shape(size: Size, other: Size) -> bool:
    """Whether one is the other scaled, height and width by the same factor."""
    ratio = (other.rows / size.rows) / (other.columns / size.columns)
    return abs(ratio - 1) <= _SAME_SHAPE


def _size(header: Header) -> Size:
    return Size(header.rows, header.columns)


def _folder(path: str) -> str:
    """The first part of a path in a table."""
    return path.strip().split("/")[0]
