"""Stand-ins for Slicer's module selector and for the menus of its subject hierarchy.

Checked against ``qSlicerSubjectHierarchyScriptedPlugin.cxx``, ``qSlicerSubjectHierarchyPluginHandler.cxx`` and
``qSlicerSubjectHierarchyAbstractPlugin.cxx``, and against ``slicer.util`` of Slicer 5.12, which is the real one here.
"""

from __future__ import annotations

import sys
import types
from pathlib import Path
from typing import Any, ClassVar

import slicer
from PySide6 import QtCore, QtGui, QtWidgets


class qSlicerScriptedLoadableModuleWidget:
    """What shows a scripted module; `self` is the module's own widget object."""

    def __init__(self, widget: Any) -> None:
        self._widget = widget

    def self(self) -> Any:
        return self._widget


class ModuleManager:
    """Knows the modules by name; None for one that there is not, as in Slicer."""

    def module(self, name: str) -> Any:
        return getattr(slicer.modules, name.lower(), None)


class ModuleSelector:
    """Leaves the module that is shown and enters the other one; one without a widget here is only remembered."""

    def __init__(self) -> None:
        self.selectedModule = ""

    def selectModule(self, name: str) -> None:
        assert slicer.app.moduleManager().module(name) is not None, f"there is no module {name}"
        if name == self.selectedModule:
            return
        before, self.selectedModule = self.selectedModule, name
        for module, method in ((before, "exit"), (name, "enter")):
            found = slicer.app.moduleManager().module(module) if module else None
            if found is not None and hasattr(found, "widgetRepresentation"):
                getattr(found.widgetRepresentation().self(), method)()


class MainWindow(QtWidgets.QWidget):
    """Found by its name, and never shown."""

    def __init__(self) -> None:
        super().__init__()
        self.setObjectName("qSlicerMainWindow")
        self._selector = ModuleSelector()

    def moduleSelector(self) -> ModuleSelector:
        return self._selector


def show(name: str, widget: Any) -> None:
    """The module is open, and its widget is this one."""
    representation = qSlicerScriptedLoadableModuleWidget(widget)
    slicer.app.moduleManager().module(name).widgetRepresentation = lambda: representation
    slicer.util.moduleSelector().selectedModule = name


class qSlicerSubjectHierarchyAbstractPlugin(QtCore.QObject):
    """Only where an action stands in a menu."""

    SectionNode = 5

    @staticmethod
    def setActionPosition(action: QtGui.QAction, section: int, weight: int = 0, weightAdjustment: float = 0.0) -> None:
        action.setProperty("section", section + weight * 0.01 + weightAdjustment * 0.0001)


class qSlicerSubjectHierarchyScriptedPlugin(qSlicerSubjectHierarchyAbstractPlugin):
    """The adaptor: it finds the class by the file's name, makes it, and calls the methods that it has."""

    def __init__(self, parent: QtCore.QObject | None) -> None:
        super().__init__(parent)
        self.name = "UnnamedScriptedPlugin"
        self._plugin: Any = None

    def setPythonSource(self, path: str) -> bool:
        if not path.endswith((".py", ".pyc")):
            return False
        module = sys.modules.get(Path(path).stem)
        ending = "SubjectHierarchyPlugin"
        name = Path(path).stem if Path(path).stem.endswith(ending) else Path(path).stem + ending
        if not hasattr(module, name):
            raise RuntimeError(f"class {name} was not found in {path}")
        self._plugin = getattr(module, name)(self)
        setattr(slicer, name, self._plugin)
        return True

    def itemContextMenuActions(self) -> list[QtGui.QAction]:
        return self._call("itemContextMenuActions") or []

    def showContextMenuActionsForItem(self, item: int) -> None:
        self._call("showContextMenuActionsForItem", item)

    def _call(self, method: str, *arguments: Any) -> Any:
        return getattr(self._plugin, method)(*arguments) if hasattr(self._plugin, method) else None


class qSlicerSubjectHierarchyPluginHandler:
    """Keeps the plugins, one of a name."""

    _instance: ClassVar[Any] = None

    def __init__(self) -> None:
        self.plugins: dict[str, qSlicerSubjectHierarchyScriptedPlugin] = {}
        self._item = 0

    @classmethod
    def instance(cls) -> qSlicerSubjectHierarchyPluginHandler:
        if cls._instance is None:
            cls._instance = cls()
        return cls._instance

    def registerPlugin(self, plugin: qSlicerSubjectHierarchyScriptedPlugin) -> bool:
        if not plugin.name or plugin.name in self.plugins:
            return False
        self.plugins[plugin.name] = plugin
        return True

    def currentItem(self) -> int:
        return self._item

    def menu(self, item: int) -> list[QtGui.QAction]:
        """What a right click on an item offers: every action is hidden first, then the plugins show theirs."""
        self._item = item
        shown: list[QtGui.QAction] = []
        for plugin in self.plugins.values():
            actions = plugin.itemContextMenuActions()
            for action in actions:
                action.setVisible(False)
            plugin.showContextMenuActionsForItem(item)
            shown += [action for action in actions if action.visible]
        return shown


def install() -> None:
    """Put all of it where modules look for it."""
    for kind in (
        qSlicerScriptedLoadableModuleWidget,
        qSlicerSubjectHierarchyAbstractPlugin,
        qSlicerSubjectHierarchyScriptedPlugin,
        qSlicerSubjectHierarchyPluginHandler,
    ):
        setattr(slicer, kind.__name__, kind)
    slicer.modules.segmenteditor = types.SimpleNamespace(name="SegmentEditor")
    slicer.app.window = MainWindow()
