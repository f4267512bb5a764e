"""The summary of a batch as one page that needs nothing but itself."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path

from radllm_backend import __version__
from radllm_backend.batch.candidates import Found
from radllm_backend.batch.results import BINS, Overview, Results
from radllm_backend.features.extraction_settings import Settings
from radllm_backend.files import write_atomically
from radllm_backend.models.prediction import RESEARCH_USE_ONLY, ModelIdentity, percent
from radllm_backend.reports._page import page_template

SUMMARY = "summary.html"
MOST_NAMED = 200
"""Failures, and lesions left out, that the page names; all are in ``results.csv``, or said by ``--list``."""
_START, _WIDTH, _HEIGHT = 10, 380, 80
"""Of a distribution, in units of its drawing, which is 400 wide."""


@dataclass(frozen=True)
class Bar:
    """One part of a distribution of probabilities."""

    x: float
    y: float
    width: float
    height: float
    side: str
    """What the model calls a lesion in its middle: ``benign``, ``uncertain`` or ``malignant``."""


@dataclass(frozen=True)
class Distribution:
    """The probabilities of the lesions of one modality."""

    modality: str
    lesions: int
    bars: list[Bar]
    words: str
    """For those who cannot see it."""


@dataclass(frozen=True)
class Page:
    """All that the summary says."""

    overview: Overview
    model: ModelIdentity
    settings_name: str
    settings_sha256: str
    left_out: int
    """What the source holds beside its lesions."""
    left_out_named: list[tuple[str, str]]
    """The first of them, each with its reason."""
    command: str

    @classmethod
    def of(cls, results: Results, model: ModelIdentity, settings: Settings, found: Found, command: str) -> Page:
        """From all rows of a model and settings, and from what a source holds beside its lesions."""
        return cls(
            overview=results.overview(settings.sha256, model.sha256, MOST_NAMED),
            model=model,
            settings_name=settings.name,
            settings_sha256=settings.sha256,
            left_out=len(found.refusals),
            left_out_named=[(refusal.what, refusal.reason) for refusal in found.refusals[:MOST_NAMED]],
            command=command,
        )

    @property
    def versions(self) -> dict[str, str]:
        """Of what computed the probabilities and measured the lesions; of one lesion, where there is one."""
        example = self.overview.example
        if example is None:
            return {"radllm_backend": __version__}
        return {**example.versions, **(example.extraction.versions if example.extraction else {})}

    @property
    def threshold(self) -> float | None:
        """Where it is in the drawings."""
        return _START + _WIDTH * self.overview.example.threshold if self.overview.example else None

    def distributions(self) -> list[Distribution]:
        """One a modality; they do not share a scale, for one may have a thousand times as many lesions."""
        return [
            Distribution(
                modality=modality or "modality unknown",
                lesions=sum(counts),
                bars=[self._bar(part, count, max(counts)) for part, count in enumerate(counts) if count],
                words="; ".join(
                    f"{percent(part / BINS)} to {percent((part + 1) / BINS)}: {count}"
                    for part, count in enumerate(counts)
                    if count
                ),
            )
            for modality, counts in self.overview.probabilities.items()
        ]

    def _bar(self, part: int, count: int, most: int) -> Bar:
        height, width = _HEIGHT * count / most, _WIDTH / BINS
        return Bar(
            x=_START + part * width,
            y=_HEIGHT - height,
            width=width - 1,
            height=height,
            side=self._side((part + 0.5) / BINS),
        )

    def _side(self, probability: float) -> str:
        example = self.overview.example
        assert example is not None  # where there is a bar, there is a prediction
        if example.band is not None and example.band.holds(probability):
            return "uncertain"
        return "malignant" if probability >= example.threshold else "benign"


def write_page(folder: Path, page: Page) -> None:
    """Write ``summary.html``; RadllmError where the folder cannot be written."""
    write_atomically(folder / SUMMARY, summary_html(page))


def summary_html(page: Page) -> str:
    """One self-contained page: no network, no script."""
    return page_template("batch.html.jinja", percent=percent).render(
        page=page, notice=RESEARCH_USE_ONLY, most=MOST_NAMED, height=_HEIGHT
    )
