"""What a batch asks of a model: which lesions, and from what the workers measured to the rows that are kept."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field
from functools import cached_property
from pathlib import Path
from typing import TYPE_CHECKING, Protocol

from radllm_backend.batch.candidates import Candidate, Found
from radllm_backend.batch.cluster import Place
from radllm_backend.batch.results import Row, reading_of, title_of
from radllm_backend.batch.worker import READER, reason_of
from radllm_backend.models.prediction import ModelIdentity, Prediction
from radllm_backend.records import Features, KeyImage
from radllm_backend.reports.files import write_reports
from radllm_backend.server.client import ServerError

if TYPE_CHECKING:
    from radllm_backend.features.extraction_settings import Settings
    from radllm_backend.models.bundle import ModelCard

LESIONS = "lesions"
"""Folder of the lesions' own reports."""
_LESION_FAULTS = ("malformed", "too-large")
"""What a server says of one lesion; any other answer is about the server, and ends the run."""


class Scorer(Protocol):
    """`Model`, or a server's `RemoteModel`."""

    @property
    def sha256(self) -> str: ...
    @property
    def identity(self) -> ModelIdentity: ...
    @property
    def settings(self) -> Settings: ...
    def warm_up(self) -> None: ...
    def predict_many(self, lesions: Sequence[Features], *, explain: bool) -> list[Prediction]: ...


@dataclass(frozen=True)
class BatchPlan:
    """What to classify, by which model, where, and what to keep of it."""

    found: Found
    model: Scorer
    output: Path
    """A folder, made if missing: ``results.sqlite``, ``results.csv``, ``results.parquet``, ``summary.html``."""
    place: Place = field(default_factory=Place)
    explain: bool = False
    """Also the reasons, at the cost of up to 20 predictions more a lesion."""
    reports: bool = False
    """Also each lesion's own reports, see `report_folder`; of this run's lesions only."""
    retry: bool = False
    """Try those that failed in an earlier run again."""
    card: ModelCard | None = None
    """Of the model, for the reports."""
    command: str = ""
    read: str = READER
    """``module:function`` that makes a `Lesion` of a `Candidate`, importable in every worker."""

    @cached_property
    def settings(self) -> Settings:
        """The model's, asked for once; RadllmError for one that reads no image."""
        return self.model.settings

    def report_folder(self, key: str) -> Path:
        """Of a lesion's own reports by this model; another model's lie beside them."""
        return self.output / LESIONS / f"{key}-{self.model.sha256[:8]}"


@dataclass(frozen=True)
class MeasuredLesion:
    """A lesion that is measured, and can be scored."""

    candidate: Candidate
    features: Features
    seconds: float
    """That reading and measuring took."""
    since: float
    """When it was measured, by `time.monotonic`."""
    picture: KeyImage | None = None
    """Where its reports are asked for: the image itself stays with the worker."""


def scored(plan: BatchPlan, lesions: Sequence[MeasuredLesion]) -> list[Row]:
    """The rows of measured lesions; one that the model cannot read fails alone.

    Raises:
        ServerError: the server does not answer, which is not a lesion's fault.
    """
    try:
        predictions: list[Prediction | str] = [*_predicted(plan, lesions)]
    except Exception as error:
        _raise_if_of_server(error)
        predictions = [_predicted_alone(plan, lesion) for lesion in lesions]
    return [_scored_row(plan, lesion, found) for lesion, found in zip(lesions, predictions, strict=True)]


def _predicted(plan: BatchPlan, lesions: Sequence[MeasuredLesion]) -> list[Prediction]:
    return plan.model.predict_many([lesion.features for lesion in lesions], explain=plan.explain)


def _predicted_alone(plan: BatchPlan, lesion: MeasuredLesion) -> Prediction | str:
    """A prediction, or the reason why there is none."""
    try:
        return _predicted(plan, [lesion])[0]
    except Exception as error:  # one lesion in thousands: it stops nothing
        _raise_if_of_server(error)
        return reason_of(error, lesion.candidate)


def _raise_if_of_server(error: Exception) -> None:
    if isinstance(error, ServerError) and error.code not in _LESION_FAULTS:
        raise error


def _scored_row(plan: BatchPlan, lesion: MeasuredLesion, found: Prediction | str) -> Row:
    """Its row, after its reports are written: a lesion that is done has all that was asked for."""
    reason = found if isinstance(found, str) else ""
    if plan.reports and isinstance(found, Prediction):
        try:
            folder = plan.report_folder(lesion.candidate.key)
            write_reports(folder, found, lesion.features, lesion.picture, plan.card)
        except Exception as error:
            reason = reason_of(error, lesion.candidate)
    prediction = found if isinstance(found, Prediction) and not reason else None
    return row_of(
        plan,
        lesion.candidate,
        seconds=lesion.seconds,
        reason=reason,
        prediction=prediction,
        features=lesion.features,
    )


def row_of(
    plan: BatchPlan,
    candidate: Candidate,
    *,
    seconds: float,
    reason: str = "",
    prediction: Prediction | None = None,
    features: Features | None = None,
) -> Row:
    """What is kept of a lesion: done with a prediction, otherwise failed for the reason.

    Args:
        seconds: that reading and measuring it took.
        features: also of a lesion that failed later than they were measured.
    """
    return Row(
        key=candidate.key,
        settings_sha256=plan.settings.sha256,
        model_sha256=plan.model.sha256,
        lesion=title_of(candidate),
        kind=candidate.kind,
        modality=candidate.modality,
        series_description=candidate.series_description,
        segment=candidate.segment,
        number=candidate.number,
        series=candidate.series,
        source=candidate.source,
        reading=reading_of(candidate),
        status="done" if prediction else "failed",
        reason=reason,
        probability=prediction.probability if prediction else None,
        call=prediction.call if prediction else None,
        cautions=tuple(dict.fromkeys(caution.code for caution in prediction.cautions)) if prediction else (),
        prediction=prediction,
        features=features,
        seconds=seconds,
    )
