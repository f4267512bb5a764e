"""What the radiologist found, as a box for each of the chosen model's descriptors."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence

import ctk
import qt
import slicer
from slicer.i18n import tr as _

from .SegmentFindings import readFindings, writeFindings

_TYPE = "lesion_type"
_OF_TYPE = {"mass_": "mass", "calcification_": "calcification"}
"""Which descriptors belong to which type of lesion, by what their names begin with."""


class FindingsPanel:
    """Fills a section with a list of the chosen segments, and with boxes for the one that is chosen in it.

    Only words of the closed vocabularies can be chosen; they are kept with the segment, in the scene.
    """

    def __init__(self, section: ctk.ctkCollapsibleButton, changed: Callable[[], None]) -> None:
        """
        Args:
            changed: called when the user chooses another value.
        """
        self._section, self._changed = section, changed
        self._segmentationNode: slicer.vtkMRMLSegmentationNode | None = None
        self._descriptors: Mapping[str, Sequence[str]] = {}
        self.isAllThereIs = False
        """Whether the model reads nothing else, so that no lesion has to be measured."""
        self._boxes: dict[str, tuple[qt.QLabel, qt.QComboBox]] = {}
        self._segments = qt.QComboBox()
        self._segments.objectName = "findingsSegmentSelector"
        self._segments.toolTip = _("The lesion that the findings below are of. Each ticked segment has its own.")
        self._segments.connect("currentIndexChanged(int)", self._showValues)
        section.layout().addRow(_("Segment:"), self._segments)
        section.visible = False

    def offer(self, descriptors: Mapping[str, Sequence[str]], isAllThereIs: bool) -> None:
        """Make the boxes of a model; the section is hidden for a model that reads no descriptor.

        Args:
            descriptors: those that the model reads, each with its values.
            isAllThereIs: whether it reads nothing else.
        """
        self.isAllThereIs = isAllThereIs
        if descriptors == self._descriptors:
            return
        self._descriptors = descriptors
        for label, box in self._boxes.values():
            for widget in (label, box):
                self._section.layout().removeWidget(widget)
                widget.setParent(None)
                widget.deleteLater()
        self._boxes = {name: self._makeBox(name, values) for name, values in descriptors.items()}
        self._section.visible = bool(self._boxes)
        self._showValues()

    def show(self, segmentationNode: slicer.vtkMRMLSegmentationNode | None, segmentIds: Sequence[str]) -> None:
        """List these segments of a segmentation; the one that was chosen stays so, if it can."""
        chosen = self._segments.currentData
        self._segmentationNode = segmentationNode
        self._segments.blockSignals(True)
        self._segments.clear()
        for segmentId in segmentIds:
            assert segmentationNode is not None
            self._segments.addItem(segmentationNode.GetSegmentation().GetSegment(segmentId).GetName(), segmentId)
        self._segments.currentIndex = max(self._segments.findData(chosen), 0) if segmentIds else -1
        self._segments.blockSignals(False)
        self._showValues()

    def choose(self, segmentId: str) -> None:
        """Show the boxes of a segment, where it is listed."""
        index = self._segments.findData(segmentId)
        if index >= 0:
            self._segments.currentIndex = index

    def current(self) -> dict[str, dict[str, str]]:
        """By segment and descriptor: what was chosen of each listed segment, for the descriptors that its type has."""
        ids = [self._segments.itemData(index) for index in range(self._segments.count)]
        return {segmentId: self._given(segmentId) for segmentId in ids} if self._boxes else {}

    def obstacle(self) -> str:
        """What is still to be chosen; empty where nothing is."""
        if not self.isAllThereIs or any(self.current().values()):
            return ""
        return _("Choose what the radiologist found, under “Findings”.")

    def _given(self, segmentId: str) -> dict[str, str]:
        found = readFindings(self._segmentationNode, segmentId) if self._segmentationNode else {}
        return {name: value for name, value in found.items() if name in self._boxes and value and _fits(name, found)}

    def _makeBox(self, descriptor: str, values: Sequence[str]) -> tuple[qt.QLabel, qt.QComboBox]:
        from radllm_backend.features.descriptors import VOCABULARIES

        label, box = qt.QLabel(_("{descriptor}:").format(descriptor=VOCABULARIES[descriptor].title)), qt.QComboBox()
        label.wordWrap = True
        box.objectName = f"{descriptor}Box"
        box.setSizeAdjustPolicy(qt.QComboBox.AdjustToMinimumContentsLengthWithIcon)  # long terms make no wide panel
        box.addItem(_("not given"), "")
        for value in values:
            box.addItem(value, value)
        box.connect("currentIndexChanged(int)", lambda _index: self._onChosen(descriptor, box))
        self._section.layout().addRow(label, box)
        return label, box

    def _onChosen(self, descriptor: str, box: qt.QComboBox) -> None:
        segmentId = self._segments.currentData
        if not segmentId or not self._segmentationNode:
            return
        found = readFindings(self._segmentationNode, segmentId)
        writeFindings(self._segmentationNode, segmentId, {**found, descriptor: box.currentData})
        self._showValues()
        self._changed()

    def _showValues(self, *_arguments: object) -> None:
        if not self._boxes:
            return
        segmentId = self._segments.currentData
        found = readFindings(self._segmentationNode, segmentId) if segmentId and self._segmentationNode else {}
        for name, (label, box) in self._boxes.items():
            box.blockSignals(True)
            box.currentIndex = max(box.findData(found.get(name, "")), 0)
            box.blockSignals(False)
            box.enabled = bool(segmentId)
            label.visible = box.visible = _fits(name, found)


def _fits(descriptor: str, found: dict[str, str]) -> bool:
    """Whether a lesion can have a descriptor: margins are a mass's, a distribution is of calcifications."""
    kind = next((kind for prefix, kind in _OF_TYPE.items() if descriptor.startswith(prefix)), None)
    return kind is None or found.get(_TYPE, "") in ("", kind) or kind in found[_TYPE].split(" and ")
