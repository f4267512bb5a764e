"""Reports in a folder of the module's own, opened with a click and without a question."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

import qt
from slicer.i18n import tr as _

from ..panel.Background import Background, Steps
from .ClassifiedLesions import ClassifiedLesions
from .ReportExport import ReportExport
from .SegmentResult import SegmentResult

_PAGE = "report.html"


class ReportPages:
    """Remembers where the pages of the results lie that were opened last, so that they are written once."""

    def __init__(self) -> None:
        self._pages: list[tuple[SegmentResult, Path]] = []

    def steps(
        self,
        lesions: ClassifiedLesions,
        chosen: SegmentResult,
        formats: Sequence[str],
        askCard: Callable[[], dict[str, Any]],
    ) -> Steps[str]:
        """Write the reports of all results, unless they lie there already, and open the page of the chosen one.

        Args:
            formats: to be written beside the page.
            askCard: as of `ReportExport`.

        Raises:
            RadllmError: as of `ReportExport`, or nothing on this computer opens a page.
        """
        if not self._find(chosen):
            folder = yield from Background(_("Making a folder for reports"), reportFolder)
            export = ReportExport(lesions, folder, tuple(dict.fromkeys(["html", *formats])), askCard)
            yield from export.steps()
            self._pages = list(zip(lesions.results, (one / _PAGE for one in export.folders), strict=True))
        page = self._find(chosen)
        assert page is not None
        _open(page)
        return _("The report of {segment} is open in your browser; its files lie in {folder}.").format(
            segment=chosen.segmentName, folder=page.parent
        )

    def _find(self, chosen: SegmentResult) -> Path | None:
        return next((page for result, page in self._pages if result is chosen and page.is_file()), None)


def reportFolder() -> Path:
    """Below the user's local application data, which no service copies to other computers, readable by the user alone;
    made if missing.

    Raises:
        RadllmError: it cannot be made.
    """
    from radllm_backend import RadllmError

    folder = Path(qt.QStandardPaths.writableLocation(qt.QStandardPaths.AppLocalDataLocation)) / "RadiomicsLLMReports"
    try:
        folder.parent.mkdir(parents=True, exist_ok=True)
        folder.mkdir(mode=0o700, exist_ok=True)
    except OSError as error:
        sentence = _("The folder for reports cannot be made ({reason}): use “Export report” with a folder of your own.")
        raise RadllmError(sentence.format(reason=error.strerror or error)) from error
    return folder


def _open(page: Path) -> None:
    from radllm_backend import RadllmError

    if not qt.QDesktopServices.openUrl(qt.QUrl.fromLocalFile(str(page))):
        raise RadllmError(_("No program on this computer opens pages: the report is {page}.").format(page=page))
