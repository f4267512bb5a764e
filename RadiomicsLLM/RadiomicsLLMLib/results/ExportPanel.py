"""What the buttons below the results do: results go out of the scene."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

from slicer.i18n import tr as _

from ..backend.Requirements import REPORTS, dicomObstacle, missingSentence
from ..panel.Background import Steps
from ..panel.PanelUi import PanelUi
from ..panel.PanelWidgets import enable
from .ClassifiedLesions import ClassifiedLesions
from .DicomExport import DicomExport
from .ExportChoice import ExportChoice
from .ReportExport import ReportExport


class ExportPanel:
    """“Export report” and “Add to DICOM database”; what is disabled says why."""

    def __init__(
        self,
        ui: PanelUi,
        *,
        shown: Callable[[], ClassifiedLesions],
        askCard: Callable[[], Callable[[], dict[str, Any]]],
        begin: Callable[[Steps[str], str], None],
    ) -> None:
        """
        Args:
            shown: gives the results that are shown.
            askCard: gives, on the main thread, what asks for the chosen model's card on any.
            begin: runs steps that return a sentence; the text says what is left undone where they are cancelled.
        """
        self._reportButton, self._dicomButton = ui.exportButton, ui.dicomButton
        self._shown, self._askCard, self._begin = shown, askCard, begin
        boxes = {
            "json": ui.jsonBox, "csv": ui.csvBox, "html": ui.htmlBox, "pdf": ui.pdfBox, "png": ui.pngBox,
        }  # fmt: skip
        self._optionsButton = ui.exportOptionsButton
        self._isRunning = self._hasAsked = False
        self._choice = ExportChoice(ui.exportFolderEdit, boxes, self.update)
        ui.exportButton.connect("clicked(bool)", self._onReport)
        ui.dicomButton.connect("clicked(bool)", self._onDicom)

    def update(self, isRunning: bool | None = None) -> None:
        """Look again at what can go out.

        Args:
            isRunning: whether something goes on, from now on; None for as before.
        """
        self._isRunning = self._isRunning if isRunning is None else isRunning
        about = _("Write a report of each classified segment, without names, into a folder of its own.")
        enable(self._reportButton, self._busy() or self._reportObstacle(), about)
        about = _(
            "Add each classified segment's mask and report to the image's patient and study, as DICOM SEG and SR. They "
            "carry the patient's name as the image does."
        )
        enable(self._dicomButton, self._busy() or self._dicomObstacle(), about)
        self._askForFolder()

    def _askForFolder(self) -> None:
        """Unfold the line for it when there is a first result, but only once: who folds it again does not want it."""
        if not self._hasAsked and self._shown().results:
            self._hasAsked = True
            self._optionsButton.collapsed = not self._choice.obstacle()

    def _busy(self) -> str:
        return _("Something is still going on: wait, or cancel it.") if self._isRunning else ""

    def _reportObstacle(self) -> str:
        lesions = self._shown()
        if obstacle := lesions.obstacle():
            return obstacle
        if any(result.features is None for result in lesions.results):
            return _("These results are of an older version of the extension: classify again.")
        return missingSentence([REPORTS]) or self._choice.obstacle()

    def _dicomObstacle(self) -> str:
        return DicomExport(self._shown()).obstacle() or dicomObstacle()

    def _onReport(self, *_arguments: object) -> None:
        export = ReportExport(self._shown(), self._choice.folder(), self._choice.formats(), self._askCard())
        self._begin(export.steps(), _("nothing was exported"))

    def _onDicom(self, *_arguments: object) -> None:
        self._begin(DicomExport(self._shown()).steps(), _("nothing was added to the DICOM database"))
