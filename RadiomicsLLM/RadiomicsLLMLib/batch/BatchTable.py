"""The lesions of a batch for the eye: what would run, or the results."""

from __future__ import annotations

from collections.abc import Callable, Sequence

import qt
from slicer.i18n import tr as _

from ..panel.PanelWidgets import fitHeight, makeTable
from .BatchLesion import BatchLesion

_LESION_WIDTH = 150  # pixels: of the first of three columns in a panel that is some 400 wide


class BatchTable:
    """Rows that grow; a double-click on one of them opens its lesion."""

    def __init__(self, layout: qt.QVBoxLayout, onOpened: Callable[[BatchLesion], None]) -> None:
        self._onOpened = onOpened
        self._lesions: list[BatchLesion] = []
        self._cells: Callable[[BatchLesion], Sequence[str]] = BatchLesion.listed
        about = _("Double-click a row to load its series and segment.")
        self.table = makeTable("batchTable", ("", "", ""), about)
        self.table.setTextElideMode(qt.Qt.ElideMiddle)  # a series' name begins a row, and its segment's ends it
        header = self.table.horizontalHeader()
        header.setSectionResizeMode(1, qt.QHeaderView.ResizeToContents)
        header.setSectionResizeMode(2, qt.QHeaderView.Stretch)
        header.resizeSection(0, _LESION_WIDTH)
        self.table.connect("cellDoubleClicked(int,int)", self._onDoubleClicked)
        layout.addWidget(self.table)

    def startList(self) -> None:
        """The rows to come say what would run."""
        self._start(BatchLesion.listed, (_("Lesion or file"), _("Modality"), _("Would run")))

    def startResults(self) -> None:
        """The rows to come are results."""
        self._start(BatchLesion.result, (_("Lesion"), _("Malignant"), _("Call or reason")))

    def add(self, lesions: Sequence[BatchLesion]) -> None:
        """Put rows below the others."""
        first = len(self._lesions)
        self._lesions += lesions
        self.table.setRowCount(len(self._lesions))
        for row, lesion in enumerate(lesions, first):
            for column, text in enumerate(self._cells(lesion)):
                item = qt.QTableWidgetItem(text)
                item.setToolTip(lesion.about())
                self.table.setItem(row, column, item)
        fitHeight(self.table)

    def _start(self, cells: Callable[[BatchLesion], Sequence[str]], headers: Sequence[str]) -> None:
        self._cells, self._lesions = cells, []
        self.table.setRowCount(0)
        self.table.setHorizontalHeaderLabels(list(headers))
        fitHeight(self.table)

    def _onDoubleClicked(self, row: int, _column: int) -> None:
        self._onOpened(self._lesions[row])
