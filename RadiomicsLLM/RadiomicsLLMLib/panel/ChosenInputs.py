"""What is chosen on the panel, kept in the scene."""

from __future__ import annotations

from collections.abc import Callable

import slicer

from .ModelChoice import ModelChoice
from .PanelUi import PanelUi

_VOLUME, _SEGMENTATION = "Volume", "Segmentation"
_MODEL, _MODALITY = "Model", "Modality"


class ChosenInputs:
    """Volume, segmentation, model and modality in the module's parameter node, from where they come back with a scene
    that is loaded.
    """

    def __init__(self, ui: PanelUi, models: ModelChoice, node: Callable[[], slicer.vtkMRMLScriptedModuleNode]) -> None:
        """
        Args:
            node: gives the parameter node of the scene, which is made if need be.
        """
        self._ui, self._models, self._node = ui, models, node
        self._isStarted = False

    def start(self) -> None:
        """The panel is ready: choose what the scene says, and write down every choice from now on."""
        if not self._isStarted:
            self.restore()
            self._isStarted = True

    def keep(self) -> None:
        """Write down what is chosen now; nothing before `start`, and while a scene is loaded, which brings its own."""
        volumeNode, segmentationNode = (
            self._ui.volumeSelector.currentNode(),
            self._ui.segmentationSelector.currentNode(),
        )
        if not self._isStarted or slicer.mrmlScene.IsBatchProcessing() or not (volumeNode or segmentationNode):
            return
        node = self._node()
        modified = node.StartModify()
        for role, chosen in ((_VOLUME, volumeNode), (_SEGMENTATION, segmentationNode)):
            node.SetNodeReferenceID(role, chosen.GetID() if chosen else None)
        node.SetParameter(_MODEL, self._models.current())
        node.SetParameter(_MODALITY, str(self._ui.modalitySelector.currentIndex))
        node.EndModify(modified)

    def restore(self) -> None:
        """Choose what the scene says; what it does not say, or what is not offered here, stays as it is."""
        node = slicer.mrmlScene.GetSingletonNode("RadiomicsLLM", "vtkMRMLScriptedModuleNode")
        if node is None:
            return
        # Read before anything is chosen: every choice is written down.
        volumeNode, segmentationNode = node.GetNodeReference(_VOLUME), node.GetNodeReference(_SEGMENTATION)
        model, modality = node.GetParameter(_MODEL), node.GetParameter(_MODALITY)
        if volumeNode:
            self._ui.volumeSelector.setCurrentNode(volumeNode)
        if segmentationNode:
            self._ui.segmentationSelector.setCurrentNode(segmentationNode)
        if modality.isdigit() and int(modality) < self._ui.modalitySelector.count:
            self._ui.modalitySelector.currentIndex = int(modality)
        self._models.choose(model)
