"""Everything below the button: what was found, and what can be done with it."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any

import qt
import slicer

from ..panel.Background import Steps
from ..panel.PanelUi import PanelUi
from ..scene.ViewJump import jumpTo, showChart
from .ClassifiedLesions import ClassifiedLesions
from .ExportPanel import ExportPanel
from .FeaturePlot import plotFeatures
from .ResultPanel import ResultPanel
from .SegmentColors import SegmentColors
from .SegmentResult import SegmentResult


class ResultsSection:
    """Table, card, reports and colours of the results that are shown."""

    def __init__(
        self,
        ui: PanelUi,
        *,
        onChosen: Callable[[SegmentResult], None],
        askCard: Callable[[], Callable[[], dict[str, Any]]],
        begin: Callable[[Steps[str], str], None],
    ) -> None:
        """
        Args:
            onChosen: called when the user clicks a row.
            askCard: as of `ExportPanel`.
            begin: as of `ExportPanel`.
        """
        self._ui, self._onRowChosen = ui, onChosen
        self._panel = ResultPanel(
            ui.resultWidget.layout(), onChosen=self._onChosen, onPlot=self._onPlot, onCurrent=lambda: self.update()
        )
        self._colors = SegmentColors(ui.colorBox, self._classified)
        self._exports = ExportPanel(
            ui, shown=self._classified, chosen=lambda: self._panel.chosen, askCard=askCard, begin=begin
        )

    @property
    def table(self) -> qt.QTableWidget:
        """One row a segment."""
        return self._panel.table

    @property
    def results(self) -> Sequence[SegmentResult]:
        """What is shown."""
        return self._panel.results

    def show(self, results: Sequence[SegmentResult]) -> None:
        """Replace what is shown; segments that are coloured by their calls are coloured by these."""
        self._panel.show(results)
        self.update()
        self._colors.recolor()

    def clear(self) -> None:
        """Show nothing."""
        self._panel.clear()

    def update(self, isRunning: bool | None = None) -> None:
        """Look again at what can be done.

        Args:
            isRunning: whether something goes on, from now on; None for as before.
        """
        self._exports.update(isRunning)
        self._colors.update(self._segmentationNode())

    def _segmentationNode(self) -> slicer.vtkMRMLSegmentationNode | None:
        return self._ui.segmentationSelector.currentNode()

    def _classified(self) -> ClassifiedLesions:
        return ClassifiedLesions(self._segmentationNode(), self._panel.results)

    def _onChosen(self, result: SegmentResult) -> None:
        jumpTo(self._segmentationNode(), result.segmentId)
        self._onRowChosen(result)

    def _onPlot(self, result: SegmentResult) -> None:
        showChart(plotFeatures(self._ui.volumeSelector.currentNode(), self._segmentationNode(), result))
