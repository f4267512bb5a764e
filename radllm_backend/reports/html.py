"""The report of a prediction: one page that needs nothing but itself, and the files that go with it."""

from __future__ import annotations

import base64
from dataclasses import dataclass
from functools import cache
from pathlib import Path
from typing import TYPE_CHECKING

from jinja2 import Environment, PackageLoader, StrictUndefined, Template

from radllm_backend.errors import RadllmError
from radllm_backend.features import Extraction, Features
from radllm_backend.prediction import RESEARCH_USE_ONLY, DescriptorShare, FeatureShare, Prediction, percent
from radllm_backend.reports.key_image import OUTLINE, key_image
from radllm_backend.safe_files import write_together

if TYPE_CHECKING:
    from radllm_backend.imaging import Lesion

MOST_ROWS = 12
"""Features shown; more would push the report beyond two printed pages."""


def write_reports(folder: Path, prediction: Prediction, features: Features, lesion: Lesion | None = None) -> None:
    """Write ``prediction.json``, ``features.csv`` and ``report.html``: all three or none.

    The same prediction gives the same bytes: there is no time stamp in them.

    Args:
        folder: made if missing.
        lesion: shown in the report, if given.

    Raises:
        RadllmError: the folder cannot be written.
    """
    files = {
        "prediction.json": prediction.model_dump_json(indent=2) + "\n",
        "features.csv": features.to_csv(),
        "report.html": report_html(prediction, lesion),
    }
    made = [path for path in (folder, *folder.parents) if not path.exists()]
    try:
        folder.mkdir(parents=True, exist_ok=True)
        write_together(folder, {name: text.encode() for name, text in files.items()})
    except OSError as error:
        _remove_empty(made)
        raise RadllmError(
            f"The report cannot be written to {folder.name} ({error.strerror or error}): "
            "free some space or choose another folder."
        ) from error


def _remove_empty(folders: list[Path]) -> None:
    for folder in folders:
        if folder.is_dir() and not any(folder.iterdir()):
            folder.rmdir()


def report_html(prediction: Prediction, lesion: Lesion | None = None) -> str:
    """One self-contained page: no network, no script, pictures inside.

    Args:
        lesion: for the key image; without it the page has none.
    """
    shares = prediction.strongest()
    return _template().render(
        prediction=prediction,
        bar=_bar(prediction),
        notice=RESEARCH_USE_ONLY,
        picture=base64.b64encode(key_image(lesion)).decode() if lesion else None,
        outline="#{:02x}{:02x}{:02x}".format(*OUTLINE),
        is_volume=lesion is not None and lesion.image.GetDimension() == 3,
        rows=_rows(shares[:MOST_ROWS]),
        left_out=len(shares[MOST_ROWS:]),
        explained=any(share.effect is not None for share in shares),
        provenance=_provenance(prediction),
    )


@cache
def _template() -> Template:
    environment = Environment(
        loader=PackageLoader("radllm_backend", "reports"),
        autoescape=True,  # everything in a prediction is somebody else's text
        undefined=StrictUndefined,
        trim_blocks=True,
        lstrip_blocks=True,
    )
    environment.filters.update(percent=percent, significant=_significant, signed=_signed)
    return environment.get_template("report.html.jinja")


@dataclass(frozen=True)
class _Bar:
    """Where things stand on the probability bar, in its drawing's units."""

    start: float
    width: float
    fill: float
    """Length up to the probability."""
    threshold: float
    zone: tuple[float, float] | None
    """Both edges of the uncertain band."""

    @property
    def middle(self) -> float:
        """Of the uncertain band; of the bar where there is none."""
        return sum(self.zone) / 2 if self.zone else self.start + self.width / 2

    def anchor(self, place: float) -> str:
        """How a text at a place is to be aligned, so that it stays in the drawing."""
        return "start" if place < 0.2 * self.width else "end" if place > 0.85 * self.width else "middle"


def _bar(prediction: Prediction, start: float = 10, width: float = 380) -> _Bar:
    band = prediction.band
    zone = (start + width * band.low, start + width * band.high) if band else None
    return _Bar(start, width, width * prediction.probability, start + width * prediction.threshold, zone)


@dataclass(frozen=True)
class _Row:
    """A feature and its bar: where it starts and how long it is, in percent of half the width; 0 is the middle."""

    share: FeatureShare | DescriptorShare
    start: float
    length: float

    @property
    def is_number(self) -> bool:
        """Whether it is a measured feature, not one of the radiologist's descriptors."""
        return isinstance(self.share, FeatureShare)


def _rows(shares: list[FeatureShare | DescriptorShare]) -> list[_Row]:
    effects = [share.effect or 0.0 for share in shares]
    longest = max(map(abs, effects), default=0.0) or 1.0
    lengths = [100 * (effect / longest) for effect in effects]
    return [
        _Row(share, start=min(length, 0.0), length=abs(length)) for share, length in zip(shares, lengths, strict=True)
    ]


@dataclass(frozen=True)
class _Source:
    """A line of the provenance table."""

    part: str
    text: str
    sha256: str | None = None


def _provenance(prediction: Prediction) -> list[_Source]:
    model = prediction.model
    sources = [
        _Source("Model", model.name, model.sha256),
        _Source("Base model", model.base_model, model.base_sha256),
        _Source("Model's score", f"{_signed(prediction.logit)} (log-odds before calibration)"),
        _Source("Prediction by", _versions(prediction.versions)),
    ]
    if prediction.extraction is None:
        return [*sources, _Source("Features", "from a table that does not say how they were extracted")]
    return [*sources, *_extraction_sources(prediction.extraction)]


def _extraction_sources(extraction: Extraction) -> list[_Source]:
    geometry = extraction.geometry
    unit = "pixels" if len(geometry.size) == 2 else "voxels"
    size = f"{_times(geometry.size)} {unit}"
    spacing = f"of {_times(geometry.spacing)} mm" if geometry.spacing_known else "of unknown spacing"
    dimension = len(geometry.size)
    corner, extent = geometry.bounding_box[:dimension], geometry.bounding_box[dimension:]
    border = "reaches the edge of the image" if geometry.touches_border else "clear of the edge of the image"
    return [
        _Source("Image", f"{extraction.modality or 'modality unknown'}, {size} {spacing}", extraction.image_sha256),
        _Source(
            "Mask",
            f"{geometry.voxels:,} {unit} in a box of {_times(extent)} at {corner}, {border}",
            extraction.mask_sha256,
        ),
        _Source("Extraction settings", extraction.preset, extraction.settings_sha256),
        _Source("Features by", _versions(extraction.versions)),
    ]


def _versions(versions: dict[str, str]) -> str:
    return ", ".join(f"{name} {version}" for name, version in sorted(versions.items()))


def _times(numbers: tuple[float, ...]) -> str:
    return " × ".join(_significant(number) for number in numbers)


def _significant(number: float) -> str:
    """Four significant digits, with a true minus sign."""
    if number == int(number) and abs(number) < 1e6:
        return f"{number:.0f}".replace("-", "−")
    return f"{number:.4g}".replace("-", "−")


def _signed(number: float) -> str:
    """Two decimals and a sign, none for what rounds to zero."""
    if abs(number) < 0.005:
        return "0.00"
    return f"{number:{'+.2f' if abs(number) < 1e4 else '+.3g'}}".replace("-", "−")
