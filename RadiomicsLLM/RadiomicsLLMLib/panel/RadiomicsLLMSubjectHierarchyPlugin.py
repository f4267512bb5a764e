"""The entry “Classify with RadiomicsLLM” in the menu of a segmentation."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import qt
import slicer
from slicer.i18n import tr as _

_MODULE = "RadiomicsLLM"


class RadiomicsLLMSubjectHierarchyPlugin:
    """What Slicer's adaptor for plugins in Python asks: it calls the methods of these names that there are.

    The adaptor makes it, by this name, and has to be registered after that: see `registerSubjectHierarchyPlugin`.
    """

    def __init__(self, scriptedPlugin: Any) -> None:
        """
        Args:
            scriptedPlugin: the adaptor, a ``qSlicerSubjectHierarchyScriptedPlugin``.
        """
        self.scriptedPlugin = scriptedPlugin  # kept: nobody else does
        self.classifyAction = qt.QAction(_("Classify with RadiomicsLLM"), scriptedPlugin)
        self.classifyAction.objectName = "ClassifyWithRadiomicsLLMAction"
        plugin = slicer.qSlicerSubjectHierarchyAbstractPlugin
        plugin.setActionPosition(self.classifyAction, plugin.SectionNode + 5)
        self.classifyAction.connect("triggered()", self.onClassify)

    def itemContextMenuActions(self) -> Sequence[qt.QAction]:
        """All that this plugin can offer of any item."""
        return [self.classifyAction]

    def showContextMenuActionsForItem(self, itemID: int) -> None:
        """Every action was hidden before: show those for this item."""
        self.classifyAction.visible = _segmentationOf(itemID) is not None

    def onClassify(self) -> None:
        """Open the module with the segmentation and, where it was drawn on one, its volume."""
        segmentationNode = _segmentationOf(slicer.qSlicerSubjectHierarchyPluginHandler.instance().currentItem())
        if segmentationNode is None:
            return
        slicer.util.selectModule(_MODULE)
        role = slicer.vtkMRMLSegmentationNode.GetReferenceImageGeometryReferenceRole()
        slicer.util.getModuleWidget(_MODULE).panel.choose(segmentationNode.GetNodeReference(role), segmentationNode)


def registerSubjectHierarchyPlugin(modulePath: str) -> None:
    """Have Slicer make the plugin and offer its actions.

    Args:
        modulePath: the module's file, in whose namespace Slicer looks for the class.
    """
    scriptedPlugin = slicer.qSlicerSubjectHierarchyScriptedPlugin(None)
    scriptedPlugin.name = _MODULE
    scriptedPlugin.setPythonSource(modulePath)
    slicer.qSlicerSubjectHierarchyPluginHandler.instance().registerPlugin(scriptedPlugin)


def _segmentationOf(itemID: int) -> slicer.vtkMRMLSegmentationNode | None:
    hierarchy = slicer.vtkMRMLSubjectHierarchyNode.GetSubjectHierarchyNode(slicer.mrmlScene)
    node = hierarchy.GetItemDataNode(itemID) if itemID else None
    return node if node is not None and node.IsA("vtkMRMLSegmentationNode") else None
