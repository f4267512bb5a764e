"""What the mammography data sets share: an image's header, and a manifest that says what it left out."""

from __future__ import annotations

import warnings
from collections import Counter
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import NamedTuple, TypeVar

import pydicom

from radllm_backend.errors import RadllmError
from radllm_backend.records import Progress

_HEADER = ("Rows", "Columns", "SeriesInstanceUID")
_Finding = TypeVar("_Finding")


class UnusableLesionError(RadllmError):
    """A lesion that cannot be used, and why; its data set is read on."""


class Manifest(NamedTuple):
    """The lesions of a data set."""

    rows: list[dict[str, str]]
    """One a lesion, all with the same columns: how to read it (`datasets.manifest`), then what is known of it."""
    left_out: list[str]
    """One sentence for each annotated lesion that is not among them."""


class Header(NamedTuple):
    """What a DICOM image says of itself."""

    rows: int
    columns: int
    series: str
    """Series Instance UID."""


def image_header(path: Path) -> Header:
    """The header of a DICOM image; `UnusableLesionError` where the file is missing or damaged."""
    if not path.is_file():
        raise UnusableLesionError("its image is not there: download it.")
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore", UserWarning)  # pydicom's remarks on a header that it can read all the same
            header = pydicom.dcmread(path, stop_before_pixels=True, specific_tags=list(_HEADER))
        return Header(int(header.Rows), int(header.Columns), str(header.get("SeriesInstanceUID", "")))
    except Exception as error:  # pydicom's parsers raise many kinds
        raise UnusableLesionError(f"{path.name} is damaged, or is no DICOM image: download it again.") from error


def collect(
    root: Path,
    findings: Sequence[_Finding],
    name: Callable[[_Finding], str],
    row: Callable[[_Finding], dict[str, str]],
    progress: Progress | None,
) -> Manifest:
    """The manifest of a data set's annotated lesions.

    Args:
        root: the data set's folder.
        findings: the annotated lesions.
        name: what a lesion is called.
        row: its row, or `UnusableLesionError`.
        progress: told after each lesion.

    Raises:
        RadllmError: no lesion can be used, and what `row` raises; with the lesion's name.
    """
    manifest = Manifest([], [])
    for number, finding in enumerate(findings, start=1):
        try:
            manifest.rows.append(row(finding))
        except UnusableLesionError as reason:
            manifest.left_out.append(f"{name(finding)}: {reason}")
        except RadllmError as error:
            raise RadllmError(f"{name(finding)}: {error}") from error
        if progress:
            progress("Reading lesions", number / len(findings))
    if not manifest.rows:
        raise RadllmError(f"{root.name} holds no lesion that can be used: {_commonest(manifest.left_out)}")
    return manifest


def reasons(left_out: Sequence[str]) -> list[tuple[str, int]]:
    """Why lesions were left out, and how many for each reason, the commonest first."""
    return Counter(sentence.partition(": ")[2] for sentence in left_out).most_common()


def _commonest(left_out: Sequence[str]) -> str:
    """A lesion that was left out for the commonest reason, with it."""
    if not left_out:
        return "its tables name none of the kind asked for."
    reason = reasons(left_out)[0][0]
    return next(sentence for sentence in left_out if sentence.endswith(reason))
