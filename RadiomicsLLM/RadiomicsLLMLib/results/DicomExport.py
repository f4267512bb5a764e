"""Results as DICOM segmentations and structured reports, in steps."""

from __future__ import annotations

import tempfile
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from functools import cache, partial
from pathlib import Path
from typing import TYPE_CHECKING

from slicer.i18n import tr as _

from ..panel.Background import Background, Steps, pauseFor
from ..scene.DicomDatabase import DicomDatabase
from .ClassifiedLesions import ClassifiedLesions
from .SegmentResult import SegmentResult

if TYPE_CHECKING:
    from radllm_backend import Lesion
    from radllm_backend.reports.dicom_sources import SourceFiles


@dataclass
class DicomExport:
    """Adds two files a lesion to Slicer's DICOM database, in the study of the volume."""

    lesions: ClassifiedLesions
    database: DicomDatabase = field(default_factory=DicomDatabase)

    def obstacle(self) -> str:
        """Why nothing can be added, and what to do; empty where something can."""
        if obstacle := self.lesions.obstacle():
            return obstacle
        if any(result.prediction and result.prediction.extraction is None for result in self.lesions.results):
            return _("The model read findings and no image: DICOM files are written of measured lesions.")
        if not self.database.holds(self.lesions.volumeNode):
            return _("The volume did not come from DICOM: load it with Slicer's module DICOM, and classify again.")
        if not self.database.isOpen():
            return _("No DICOM database is open: open one in Slicer's module DICOM.")
        return ""

    def steps(self) -> Steps[str]:
        """All lesions or none; returns one sentence on what was added.

        Raises:
            RadllmError: the volume's files are gone or cannot be referred to, a lesion is another one by now, or the
                database did not take the new files.
        """
        # Read in the background with the first lesion, and decoded once for all of them.
        files = cache(partial(_files, self.database.files(self.lesions.volumeNode)))
        count = len(self.lesions.results)
        # On Windows a cancelled step may still have a file open.
        with tempfile.TemporaryDirectory(prefix="RadiomicsLLM-", ignore_cleanup_errors=True) as folder:
            for index, result in enumerate(self.lesions.results):
                sentence = _("Writing DICOM of {segment}").format(segment=result.segmentName)
                lesion = yield from self.lesions.lesion(result, pauseFor(sentence, index / count))
                write = partial(_write, Path(folder) / str(index), files, lesion, result)
                yield from Background(sentence, write, index / count)
            self.database.add(Path(folder))
        sentence = _("Added to the DICOM database, each with a segmentation and a structured report: {segments}.")
        return sentence.format(segments=", ".join(result.segmentName for result in self.lesions.results))


def _files(files: Sequence[Path]) -> SourceFiles:
    from radllm_backend.reports.dicom_sources import SourceFiles

    return SourceFiles.of_files(files)


def _write(
    folder: Path, files: Callable[[], SourceFiles], lesion: Callable[[], Lesion | None], result: SegmentResult
) -> None:
    from radllm_backend.reports.dicom import write_dicom

    measured = lesion()
    assert result.prediction is not None
    assert measured is not None
    folder.mkdir()
    # With the patient, as in the image's own files: Slicer makes up another one where the ID is empty.
    write_dicom(folder, files(), measured, result.prediction, identifiers=True)
