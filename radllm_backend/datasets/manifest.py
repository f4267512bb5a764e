"""Any data set as a CSV manifest: one row a lesion, with the files it lies in and whatever else is known of it."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

from radllm_backend.errors import RadllmError
from radllm_backend.extraction import Settings, extract
from radllm_backend.feature_table import LESION, read_rows
from radllm_backend.features import Features
from radllm_backend.imaging import Lesion

FILE_COLUMNS = ("image", "mask", "mask_label", "segment", "spacing_mm", "modality")
"""Columns that say how to read a lesion (only the first two are required); they do not go into the feature table."""

Progress = Callable[[int, int], None]


def extract_manifest(
    path: Path, settings: Settings, progress: Progress | None = None
) -> list[tuple[dict[str, str], Features]]:
    """The features of every lesion of a manifest, each with its other columns (lesion, label, patient, ...).

    Paths are relative to the manifest's folder. ``spacing_mm`` is one number or ``x;y``.

    Raises:
        RadllmError: naming the line and what is wrong with it; nothing is left out silently.
    """
    rows = read_rows(path, FILE_COLUMNS[:2])
    extracted = []
    for number, row in enumerate(rows, start=1):
        try:
            features = extract(read_lesion(row, path.parent), settings)
        except RadllmError as error:
            raise RadllmError(f"Line {number + 1} of {path.name}: {error}") from error
        others = {name: cell for name, cell in row.items() if name not in FILE_COLUMNS}
        extracted.append(({LESION: str(number), **others}, features))
        if progress:
            progress(number, len(rows))
    return extracted


def read_lesion(row: dict[str, str], folder: Path) -> Lesion:
    """The lesion of one manifest row."""
    label = row.get("mask_label") or None
    if label is not None and not label.isdigit():
        raise RadllmError(f"mask_label is '{label[:40]}': use the whole number that the lesion has in the mask.")
    return Lesion.from_files(
        folder / row["image"],
        folder / row["mask"],
        label=int(label) if label else None,
        segment=row.get("segment") or None,
        spacing=parse_spacing(row.get("spacing_mm") or None),
        modality=row.get("modality") or None,
    )


def parse_spacing(text: str | None) -> float | tuple[float, ...] | None:
    """Millimetres per pixel from ``0.07`` or ``0.07;0.08`` (x, then y; a comma serves too)."""
    if text is None:
        return None
    try:
        numbers = tuple(float(part) for part in text.replace(",", ";").split(";"))
    except ValueError:
        numbers = ()
    if not 1 <= len(numbers) <= 3 or not all(0 < number < 1000 for number in numbers):
        raise RadllmError(f"The spacing '{text[:40]}' is not one: use millimetres per pixel such as 0.07 or 0.07;0.08.")
    return numbers[0] if len(numbers) == 1 else numbers
