"""What a worker of a batch does with one lesion: read and measure it. Text goes in and text comes out.

A worker may be on another machine: it has this package, and the files under the same names.
"""

from __future__ import annotations

import importlib
import json
import time
from collections.abc import Callable, Sequence
from pathlib import Path

from radllm_backend import __version__
from radllm_backend.batch.candidates import Candidate
from radllm_backend.errors import RadllmError
from radllm_backend.features.extraction import extract
from radllm_backend.features.extraction_settings import Settings
from radllm_backend.imaging.lesion import Lesion
from radllm_backend.records import Features, KeyImage, Record

READER = "radllm_backend.batch.lesions:read_lesion"
"""The function that makes a `Lesion` of a `Candidate`, as ``module:function``."""
_LONGEST = 300


class Measurement(Record):
    """Features, or the reason why there are none."""

    features: Features | None = None
    picture: KeyImage | None = None
    """All that its reports need of the image."""
    reason: str = ""
    seconds: float = 0
    """Of reading and measuring."""


def measure_lesions(
    candidates: Sequence[str], settings: str, reader: str = READER, *, pictures: bool = False
) -> list[str]:
    """Read lesions and extract their features. Whatever goes wrong is in the answers: nothing is raised.

    Args:
        candidates: each a `Candidate` as JSON.
        settings: name and content of the `Settings`, as `settings_text` writes them.
        reader: ``module:function`` that reads a lesion.
        pictures: whether their reports will need a picture, which is drawn here, where the image is.

    Returns:
        A `Measurement` as JSON for each.
    """
    return [_measured(candidate, settings, reader, pictures).model_dump_json() for candidate in candidates]


def _measured(candidate: str, settings: str, reader: str, pictures: bool) -> Measurement:
    begun = time.perf_counter()
    chosen = Candidate.model_validate_json(candidate)
    try:
        lesion = _lesion_of(chosen, reader)
        features = extract(lesion, _settings(settings))
        seconds = time.perf_counter() - begun
        return Measurement(features=features, picture=_drawn(lesion) if pictures else None, seconds=seconds)
    except Exception as error:  # one lesion in thousands, of files from anywhere: it stops nothing
        return Measurement(reason=reason_of(error, chosen), seconds=time.perf_counter() - begun)


def _drawn(lesion: Lesion) -> KeyImage:
    from radllm_backend.reports.key_image import key_image  # a worker whose lesions have no reports starts without it

    return key_image(lesion)


def _lesion_of(candidate: Candidate, reader: str) -> Lesion:
    """Read a lesion.

    Raises:
        RadllmError: it cannot be read; other exceptions, where the reader raises any.
    """
    module, _, name = reader.partition(":")
    read: Callable[[Candidate], Lesion] = getattr(importlib.import_module(module), name)
    return read(candidate)


def settings_text(settings: Settings) -> str:
    """Settings as JSON."""
    return json.dumps([settings.name, settings.to_dict()])


def _settings(text: str) -> Settings:
    name, content = json.loads(text)
    return Settings.from_dict(content, name)


def reason_of(error: Exception, candidate: Candidate | None = None) -> str:
    """One sentence that says what went wrong with a lesion, without the folders that its files lie in."""
    words = " ".join(str(error).split())
    if not isinstance(error, RadllmError):
        kind = type(error).__name__
        words = f"It cannot be measured ({kind}{': ' if words else ''}{words[:_LONGEST]}): check its files."
    files = {*candidate.image, candidate.segmentation} if candidate else set()
    for folder in sorted({str(Path(file).parent) for file in files}, key=len, reverse=True):
        words = words.replace(f"{folder}/", "").replace(f"{folder}\\", "").replace(folder, Path(folder).name)
    return words


def package_version() -> str:
    """Of radllm_backend, where this is called."""
    return __version__
