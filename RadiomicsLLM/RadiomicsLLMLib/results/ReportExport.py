"""Reports of results as files, in steps."""

from __future__ import annotations

import re
import shutil
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING, Any

from slicer.i18n import tr as _

from ..panel.Background import Background, Steps, pauseFor
from .ClassifiedLesions import ClassifiedLesions
from .SegmentResult import SegmentResult

if TYPE_CHECKING:
    from radllm_backend import Lesion
    from radllm_backend.models.bundle import ModelCard
    from radllm_backend.models.prediction import ModelIdentity

_PREFIX = "lesion-"  # never a segment's name: that is often a patient's


@dataclass
class ReportExport:
    """Writes one folder a lesion. Nothing that lies in the folder already is replaced: the numbers go on."""

    lesions: ClassifiedLesions
    folder: Path
    """Made if missing."""
    formats: Sequence[str]
    askCard: Callable[[], dict[str, Any]]
    """The content of the chosen model's ``model.json``; RadllmError where it is not known."""
    _made: list[Path] = field(default_factory=list)

    @property
    def folders(self) -> Sequence[Path]:
        """What was made: one a lesion, in the order of their results."""
        return self._made

    def steps(self) -> Steps[str]:
        """All lesions or none; returns one sentence on what lies where.

        Raises:
            RadllmError: a lesion is not there any more or another one, or the folder cannot be written.
        """
        try:
            return (yield from self._write())
        except BaseException:  # also where the user cancels
            for folder in self._made:
                shutil.rmtree(folder, ignore_errors=True)
            raise

    def _write(self) -> Steps[str]:
        number = yield from Background(_("Looking into the folder"), partial(_firstFree, self.folder))
        card = yield from Background(_("Reading the model's card"), self._card)
        count, written = len(self.lesions.results), []
        for index, result in enumerate(self.lesions.results):
            target = self.folder / f"{_PREFIX}{number + index}"
            sentence = _("Writing the report of {segment}").format(segment=result.segmentName)
            lesion = yield from self.lesions.lesion(result, pauseFor(sentence, index / count))
            write = partial(self._writeOne, target, result, lesion, card)
            self._made.append(target)
            yield from Background(sentence, write, index / count)
            written.append(f"{target.name} ({result.segmentName})")
        sentence = _("Exported to the folder “{folder}”: {written}.")
        return sentence.format(folder=self.folder.name, written=", ".join(written))

    def _writeOne(
        self, target: Path, result: SegmentResult, lesion: Callable[[], Lesion | None], card: ModelCard | None
    ) -> None:
        from radllm_backend.reports.files import write_reports

        assert result.prediction is not None
        assert result.features is not None
        own = card if card and _isOf(card, result.prediction.model) else None
        write_reports(target, result.prediction, result.features, lesion(), own, formats=tuple(self.formats))

    def _card(self) -> ModelCard | None:
        """None where the model's backend does not know it now, as after a scene was loaded."""
        from radllm_backend import RadllmError
        from radllm_backend.models.bundle import ModelCard

        try:
            return ModelCard.model_validate(self.askCard())
        except (RadllmError, ValueError):
            return None


def _isOf(card: ModelCard, model: ModelIdentity) -> bool:
    """Whether a card is that of a result's model; another one may have been chosen since."""
    return (card.name, card.base.sha256) == (model.name, model.base_sha256)


def _firstFree(folder: Path) -> int:
    """The number after the highest one that is taken."""
    from radllm_backend import RadllmError

    try:
        names = [path.name for path in folder.iterdir()] if folder.exists() else []
    except OSError as error:
        sentence = _("Nothing can be written to {folder} ({reason}): choose another folder.")
        raise RadllmError(sentence.format(folder=folder.name, reason=error.strerror or error)) from error
    taken = [int(found[1]) for name in names if (found := re.fullmatch(_PREFIX + r"(\d+)", name, re.IGNORECASE))]
    return max(taken, default=0) + 1
