"""Results for the eye: a table of the segments, and the card of the one that is chosen in it."""

from __future__ import annotations

from collections.abc import Callable, Sequence

import qt
from slicer.i18n import tr as _

from ..panel.PanelWidgets import fitHeight, makeTable
from .ResultCard import resultCard
from .SegmentResult import SegmentResult


class ResultPanel:
    """Fills a layout with a table, and with the card of the chosen row below it."""

    def __init__(
        self,
        layout: qt.QVBoxLayout,
        *,
        onChosen: Callable[[SegmentResult], None],
        onPlot: Callable[[SegmentResult], None],
        onCurrent: Callable[[], None],
    ) -> None:
        """
        Args:
            onChosen: called when the user clicks a row.
            onCurrent: called when another row is shown, clicked or not.
            onPlot: called when the user wants a chart in Slicer's plot view.
        """
        self._layout, self._onChosen, self._onPlot = layout, onChosen, onPlot
        self._onShown = onCurrent
        self._results: list[SegmentResult] = []
        self._card: qt.QFrame | None = None
        self.table = _emptyTable()
        self.table.connect("cellClicked(int,int)", self._onClicked)
        self.table.connect("currentCellChanged(int,int,int,int)", self._onCurrent)
        layout.addWidget(self.table)

    @property
    def results(self) -> Sequence[SegmentResult]:
        """What is shown."""
        return self._results

    @property
    def chosen(self) -> SegmentResult | None:
        """The result of the chosen row."""
        row = self.table.currentRow()
        return self._results[row] if 0 <= row < len(self._results) else None

    def clear(self) -> None:
        """Show nothing."""
        self.show([])

    def show(self, results: Sequence[SegmentResult]) -> None:
        """Replace the rows; the first one is chosen."""
        self._results = list(results)
        self.table.blockSignals(True)
        self.table.setRowCount(len(self._results))
        for row, result in enumerate(self._results):
            for column, text in enumerate(_cells(result)):
                self.table.setItem(row, column, qt.QTableWidgetItem(text))
        self.table.blockSignals(False)
        fitHeight(self.table)
        self._showCard(0)
        if self._results:
            self.table.setCurrentCell(0, 0)

    def _onClicked(self, row: int, _column: int) -> None:
        self._onChosen(self._results[row])

    def _onCurrent(self, row: int, _column: int, _rowBefore: int, _columnBefore: int) -> None:
        self._showCard(row)
        self._onShown()

    def _showCard(self, row: int) -> None:
        if self._card is not None:
            self._layout.removeWidget(self._card)
            self._card.setParent(None)
            self._card.deleteLater()
            self._card = None
        if 0 <= row < len(self._results):
            self._card = resultCard(self._results[row], self._onPlot)
            self._layout.addWidget(self._card)


def _cells(result: SegmentResult) -> tuple[str, str, str]:
    if result.prediction is None:
        return result.segmentName, "", _("not classified")
    from radllm_backend.models.prediction import percent

    return result.segmentName, percent(result.prediction.probability), result.prediction.call


def _emptyTable() -> qt.QTableWidget:
    about = _("Click a row to see the lesion in the slice views, and its reasons below.")
    table = makeTable("resultTable", (_("Segment"), _("Malignant"), _("Call")), about)
    table.horizontalHeader().setSectionResizeMode(0, qt.QHeaderView.Stretch)
    for column in (1, 2):
        table.horizontalHeader().setSectionResizeMode(column, qt.QHeaderView.ResizeToContents)
    return table
