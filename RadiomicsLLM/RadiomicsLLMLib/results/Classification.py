"""From segments to results, in steps."""

from __future__ import annotations

import importlib
import logging
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from functools import partial
from typing import TYPE_CHECKING

from slicer.i18n import tr as _

from ..panel.Background import Background, Steps, pauseFor
from ..scene.SegmentedVolume import SegmentedVolume, Snapshot
from .SegmentResult import SegmentResult

if TYPE_CHECKING:
    from radllm_backend import Features, Lesion, Prediction
    from radllm_backend.features.extraction_settings import Settings

    from ..backend.Backend import Backend, ServedModel

Extract = Callable[["Lesion", "Settings"], "Features"]
Approve = Callable[["ServedModel", Sequence["Features"]], bool]
_LOADED, _MEASURED = 0.2, 0.6  # of the progress
_USED_AFTERWARDS = (
    "radllm_backend.features.descriptors",
    "radllm_backend.reports.dicom_codes",
    "radllm_backend.server.client",
)
"""What the main thread uses then, here and to show results: its windows would stand still while it is imported."""


@dataclass
class Classification:
    """Some segments of a volume, read by one model of a backend."""

    source: SegmentedVolume
    segmentIds: Sequence[str]
    backend: Backend
    model: str
    """A name that the backend knows, or a folder."""
    settings: str | None = None
    """A preset or a PyRadiomics parameter file instead of the settings the model was trained with."""
    extract: Extract | None = None
    """What measures a lesion; None for PyRadiomics in Slicer's own Python."""
    approve: Approve | None = None
    """Asked, on the main thread, before anything is sent: with the model, and the lesions' features."""
    findings: Mapping[str, Mapping[str, str]] = field(default_factory=dict)
    """What the radiologist found, by segment ID and descriptor: words of the closed vocabularies."""
    _problems: dict[str, str] = field(default_factory=dict)

    def steps(self) -> Steps[list[SegmentResult]]:
        """One result a segment, in their order: a prediction, or the reason why there is none.

        Raises:
            RadllmError: the model or the settings cannot be used, or nothing may be sent.
        """
        from radllm_backend import RadllmError

        model = yield from Background(_("Loading the model {model}").format(model=_lastPart(self.model)), self._load)
        settings = yield from Background(_("Reading the settings"), partial(self._settingsFor, model), _LOADED)
        features = (yield from self._measure(settings)) if settings else self._found()
        if features and self.approve and not self.approve(model, list(features.values())):
            raise RadllmError(_("Nothing was sent, so nothing was classified."))
        predictions = yield from self._ask(model, features)
        return [
            SegmentResult(
                segmentId,
                self.source.segmentName(segmentId),
                predictions.get(segmentId),
                self._problems.get(segmentId, ""),
                features.get(segmentId),
            )
            for segmentId in self.segmentIds
        ]

    def _load(self) -> ServedModel:
        for name in _USED_AFTERWARDS:
            importlib.import_module(name)
        return self.backend.model(self.model)

    def _settingsFor(self, model: ServedModel) -> Settings | None:
        """None for a model that reads findings alone: nothing is measured for it."""
        from radllm_backend.features.extraction import load_settings

        if self.backend.card(self.model)["settings_name"] is None:
            return None
        return load_settings(self.settings) if self.settings else model.settings

    def _measure(self, settings: Settings) -> Steps[dict[str, Features]]:
        features = {}
        for segmentId, fraction in self._withFractions(_LOADED, _MEASURED):
            sentence = _("Measuring {segment}").format(segment=self.source.segmentName(segmentId))
            try:
                snapshot = yield from self.source.snapshot(segmentId, pauseFor(sentence, fraction))
                measure = partial(_measured, snapshot, settings, self.extract, self._canonical(segmentId))
                features[segmentId] = yield from Background(sentence, measure, fraction)
            except Exception as error:
                self._problems[segmentId] = _inOneSentence(error)
        return features

    def _found(self) -> dict[str, Features]:
        """What the radiologist found is all that the model reads."""
        from radllm_backend import Features, RadllmError

        features = {}
        for segmentId in self.segmentIds:
            try:
                self._require(segmentId)
                features[segmentId] = Features(values={}, descriptors=self._canonical(segmentId))
            except RadllmError as error:
                self._problems[segmentId] = _inOneSentence(error)
        return features

    def _require(self, segmentId: str) -> None:
        from radllm_backend import RadllmError

        segmentation = self.source.segmentationNode.GetSegmentation()
        if not self.source.isInScene() or not segmentation.GetSegment(segmentId):
            sentence = _("There is no segment with the ID '{segment}' any more: choose another one.")
            raise RadllmError(sentence.format(segment=segmentId))

    def _canonical(self, segmentId: str) -> dict[str, str]:
        """The findings of a segment; RadllmError for a word outside the vocabularies."""
        from radllm_backend.features.descriptors import canonical

        given = {name: canonical(name, text) for name, text in self.findings.get(segmentId, {}).items()}
        return {name: value for name, value in given.items() if value}

    def _ask(self, model: ServedModel, features: dict[str, Features]) -> Steps[dict[str, Prediction]]:
        from radllm_backend.server.client import ServerError

        predictions: dict[str, Prediction] = {}
        lost = ""
        for segmentId, fraction in self._withFractions(_MEASURED, 1.0):
            if segmentId not in features:
                continue
            sentence = _("Asking {model} about {segment}").format(
                model=model.name, segment=self.source.segmentName(segmentId)
            )
            try:
                if not lost:
                    ask = partial(model.predict, features[segmentId])
                    predictions[segmentId] = yield from Background(sentence, ask, fraction)
            except ServerError as error:  # it will not answer for the others either
                lost = _inOneSentence(error)
            except Exception as error:
                self._problems[segmentId] = _inOneSentence(error)
            if lost:
                self._problems[segmentId] = lost
        return predictions

    def _withFractions(self, start: float, end: float) -> list[tuple[str, float]]:
        step = (end - start) / max(1, len(self.segmentIds))
        return [(segmentId, start + index * step) for index, segmentId in enumerate(self.segmentIds)]


def _measured(snapshot: Snapshot, settings: Settings, measure: Extract | None, findings: dict[str, str]) -> Features:
    from radllm_backend import extract

    return (measure or extract)(snapshot.lesion(), settings).model_copy(update={"descriptors": findings})


def _inOneSentence(error: Exception) -> str:
    from radllm_backend import RadllmError

    if isinstance(error, RadllmError):
        sentence = str(error)
        return sentence[:1].upper() + sentence[1:]
    # A mistake of ours: the other segments still get their results.
    logging.error("RadiomicsLLM could not classify a segment.", exc_info=error)
    return _("Unexpected: {error}. Please report it with Slicer's error log.").format(error=error)


def _lastPart(nameOrFolder: str) -> str:
    return nameOrFolder.replace("\\", "/").rstrip("/").rpartition("/")[2]
