"""Which segments of a segmentation are classified."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any

import qt
import slicer

from .SegmentedVolume import visibleSegmentIds

_MOST_ROWS_SHOWN, _FRAME = 6, 6


class SegmentChoice:
    """A list of the segments with a box each; the boxes follow the eyes of the segments until the user clicks one."""

    def __init__(self, label: qt.QLabel, listWidget: qt.QListWidget, changed: Callable[[], None]) -> None:
        """
        Args:
            label: stands beside the list; both are hidden where there is no segment.
            changed: called when the user chooses other segments.
        """
        self._label, self._list, self._changed = label, listWidget, changed
        self._segmentationNode: slicer.vtkMRMLSegmentationNode | None = None
        self._byHand: dict[str, bool] = {}
        listWidget.connect("itemChanged(QListWidgetItem*)", self._onItemChanged)

    def show(self, segmentationNode: slicer.vtkMRMLSegmentationNode | None) -> None:
        """List the segments of a segmentation, or of none; what was chosen by hand stays so for the same one."""
        if segmentationNode is not self._segmentationNode:
            self._segmentationNode, self._byHand = segmentationNode, {}
        self._list.blockSignals(True)
        self._fill(segmentationNode)
        self._list.blockSignals(False)
        self._list.setFixedHeight(_FRAME + self._list.sizeHintForRow(0) * min(_MOST_ROWS_SHOWN, self._list.count))
        for widget in (self._label, self._list):
            widget.setVisible(self._list.count > 0)

    def current(self) -> list[str]:
        """IDs of the chosen segments, in the segmentation's order."""
        items = (self._list.item(row) for row in range(self._list.count))
        return [item.data(qt.Qt.UserRole) for item in items if item.checkState() == qt.Qt.Checked]

    def _fill(self, segmentationNode: slicer.vtkMRMLSegmentationNode | None) -> None:
        """Change rows, and make none anew: the current one and the scroll position stay."""
        visible: Sequence[str] = visibleSegmentIds(segmentationNode) if segmentationNode else []
        segmentation: Any = segmentationNode.GetSegmentation() if segmentationNode else None
        segmentIds: Sequence[str] = segmentation.GetSegmentIDs() if segmentation else []
        for row, segmentId in enumerate(segmentIds):
            item = self._itemOf(segmentId, row)
            item.setText(segmentation.GetSegment(segmentId).GetName())
            chosen = self._byHand.get(segmentId, segmentId in visible)
            item.setCheckState(qt.Qt.Checked if chosen else qt.Qt.Unchecked)
        while self._list.count > len(segmentIds):
            self._list.takeItem(len(segmentIds))

    def _itemOf(self, segmentId: str, row: int) -> qt.QListWidgetItem:
        """The segment's item in that row; what is of segments that are gone makes place for it."""
        for place in range(row, self._list.count):
            if self._list.item(place).data(qt.Qt.UserRole) == segmentId:
                for _gone in range(place - row):
                    self._list.takeItem(row)
                return self._list.item(row)
        item = qt.QListWidgetItem()
        item.setData(qt.Qt.UserRole, segmentId)
        self._list.insertItem(row, item)
        return item

    def _onItemChanged(self, item: qt.QListWidgetItem) -> None:
        self._byHand[item.data(qt.Qt.UserRole)] = item.checkState() == qt.Qt.Checked
        self._changed()
