"""A lesion measured in another process, whose Python has PyRadiomics where this one has none.

Both sides are here: the one that asks writes a lesion into a private folder, the one that measures answers in it.
"""

from __future__ import annotations

import json
import sys
from pathlib import Path
from typing import Any

import numpy as np
import SimpleITK as sitk

from radllm_backend.errors import RadllmError
from radllm_backend.features.extraction import extract
from radllm_backend.features.extraction_settings import Settings
from radllm_backend.imaging.lesion import Lesion
from radllm_backend.records import Features

_LESION, _ANSWER, _PROBLEM = "lesion.npz", "features.json", "problem.txt"
_GRID = ("Spacing", "Origin", "Direction")


def ask(folder: Path, lesion: Lesion, settings: Settings) -> None:
    """Write what is to be measured into a folder; every number as it is, but no name of a segment.

    Raises:
        OSError: the folder cannot be written.
    """
    known = {"modality": lesion.modality, "spacing_known": lesion.spacing_known}
    chosen = {"data": settings.to_dict(), "name": settings.name}
    arrays: dict[str, Any] = {
        "image": sitk.GetArrayViewFromImage(lesion.image),
        "mask": sitk.GetArrayViewFromImage(lesion.mask),
    }
    grid = {name: getattr(lesion.image, f"Get{name}")() for name in _GRID}
    np.savez(folder / _LESION, known=json.dumps([known, chosen]), **arrays, **grid)


def answer(folder: Path) -> None:
    """Measure what `ask` wrote, and write the features, or one sentence on why there are none, beside it."""
    try:
        lesion, settings = _read(folder / _LESION)
        (folder / _ANSWER).write_text(extract(lesion, settings).model_dump_json(), encoding="utf-8")
    except RadllmError as error:
        (folder / _PROBLEM).write_text(str(error), encoding="utf-8")


def answered(folder: Path) -> Features:
    """What `answer` wrote.

    Raises:
        RadllmError: the lesion could not be measured.
    """
    if (folder / _PROBLEM).exists():
        raise RadllmError((folder / _PROBLEM).read_text(encoding="utf-8"))
    return Features.model_validate_json((folder / _ANSWER).read_bytes())


def serve() -> None:
    """Answer in every folder that is named on standard input, one a line, until that ends; an empty line each time."""
    for line in sys.stdin:
        answer(Path(line.rstrip("\n")))
        print(flush=True)


def _read(path: Path) -> tuple[Lesion, Settings]:
    with np.load(path, allow_pickle=False) as file:
        known, chosen = json.loads(str(file["known"]))
        images = [sitk.GetImageFromArray(file[name]) for name in ("image", "mask")]
        for image in images:
            for name in _GRID:
                getattr(image, f"Set{name}")(file[name].tolist())
    return Lesion(images[0], images[1], **known), Settings.from_dict(chosen["data"], chosen["name"])
