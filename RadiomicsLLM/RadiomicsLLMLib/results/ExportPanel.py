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
from .ReportPages import ReportPages
from .SegmentResult import SegmentResult


class ExportPanel:
    """“Open report”, “Export report” and “Add to DICOM database”; what is disabled says why."""

    def __init__(
        self,
        ui: PanelUi,
        *,
        shown: Callable[[], ClassifiedLesions],
        chosen: Callable[[], SegmentResult | None],
        askCard: Callable[[], Callable[[], dict[str, Any]]],
        begin: Callable[[Steps[str], str], None],
    ) -> None:
        """
        Args:
            shown: gives the results that are shown.
            chosen: gives the one of the chosen row.
            askCard: gives, on the main thread, what asks for the chosen model's card on any.
            begin: runs steps that return a sentence; the text says what is left undone where they are cancelled.
        """
        self._openButton, self._reportButton, self._dicomButton = ui.openReportButton, ui.exportButton, ui.dicomButton
        self._shown, self._chosen, self._askCard, self._begin = shown, chosen, askCard, begin
        self._pages = ReportPages()
        boxes = {
            "json": ui.jsonBox, "csv": ui.csvBox, "html": ui.htmlBox, "pdf": ui.pdfBox, "png": ui.pngBox,
        }  # fmt: skip
        self._isRunning = False
        self._choice = ExportChoice(ui.exportFolderEdit, boxes, self.update)
        ui.openReportButton.connect("clicked(bool)", self._onOpen)
        ui.exportButton.connect("clicked(bool)", self._onReport)
        ui.dicomButton.connect("clicked(bool)", self._onDicom)

    def update(self, isRunning: bool | None = None) -> None:
        """Look again at what can go out.

        Args:
            isRunning: whether something goes on, from now on; None for as before.
        """
        self._isRunning = self._isRunning if isRunning is None else isRunning
        about = _("Write the reports, without names, into a private folder, and open that of the chosen row.")
        enable(self._openButton, self._busy() or self._pageObstacle(), about)
        about = _("Write a report of each classified segment, without names, into a folder of its own.")
        enable(self._reportButton, self._busy() or self._reportObstacle() or self._choice.obstacle(), about)
        about = _(
            "Add each classified segment's mask and report to the image's patient and study, as DICOM SEG and SR. They "
            "carry the patient's name as the image does."
        )
        enable(self._dicomButton, self._busy() or self._dicomObstacle(), about)

    def _busy(self) -> str:
        return _("Something is still going on: wait, or cancel it.") if self._isRunning else ""

    def _reportObstacle(self) -> str:
        lesions = self._shown()
        if obstacle := lesions.obstacle():
            return obstacle
        if any(result.features is None for result in lesions.results):
            return _("These results are of an older version of the extension: classify again.")
        return missingSentence([REPORTS])

    def _pageObstacle(self) -> str:
        if obstacle := self._reportObstacle():
            return obstacle
        chosen = self._chosen()
        if chosen is None or chosen.prediction is None:
            return _("Choose a row that has a result.")
        return ""

    def _dicomObstacle(self) -> str:
        return DicomExport(self._shown()).obstacle() or dicomObstacle()

    def _onOpen(self, *_arguments: object) -> None:
        chosen = self._chosen()
        if chosen:
            steps = self._pages.steps(self._shown(), chosen, self._choice.formats(), self._askCard())
            self._begin(steps, _("no report was written"))

    def _onReport(self, *_arguments: object) -> None:
        export = ReportExport(self._shown(), self._choice.folder(), self._choice.formats(), self._askCard())
        self._begin(export.steps(), _("nothing was exported"))

    def _onDicom(self, *_arguments: object) -> None:
        self._begin(DicomExport(self._shown()).steps(), _("nothing was added to the DICOM database"))
