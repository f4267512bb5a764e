"""``slicer.app``, ``slicer.modules`` and the base classes of a scripted module; then a module can be loaded."""

from __future__ import annotations

import importlib
import sys
import tempfile
import types
import unittest
from pathlib import Path
from typing import Any

import shiboken6
import slicer
import slicer.util
from PySide6 import QtCore, QtWidgets

from Testing.slicer.harness import dicom, main_window, pythonqt, sample_data, slice_views, widgets

_LOGICS = {
    "Colors": "vtkMRMLColorLogic",
    "Plots": "vtkSlicerPlotsLogic",
    "Segmentations": "vtkSlicerSegmentationsModuleLogic",
    "SubjectHierarchy": "vtkSlicerSubjectHierarchyModuleLogic",
    "Tables": "vtkSlicerTablesLogic",
    "Volumes": "vtkSlicerVolumesLogic",
}


class qSlicerApplication(QtWidgets.QApplication):
    """In testing mode, so that no dialog waits for a click."""

    applicationName = "Slicer"
    startupCompleted = QtCore.Signal()

    def __init__(self) -> None:
        super().__init__(["Slicer"])
        self._logic = slicer.vtkSlicerApplicationLogic()  # the modules' logics keep no reference of their own

    def applicationLogic(self) -> Any:
        return self._logic

    def testingEnabled(self) -> bool:
        return True

    def startupEnvironment(self) -> QtCore.QProcessEnvironment:
        return QtCore.QProcessEnvironment.systemEnvironment()

    def mrmlScene(self) -> Any:
        return slicer.mrmlScene

    def moduleManager(self) -> main_window.ModuleManager:
        return main_window.ModuleManager()

    def layoutManager(self) -> slice_views.LayoutManager:
        return self._layout

    def makeLayout(self) -> None:
        """Once there is a scene."""
        self._layout = slice_views.LayoutManager(self._logic)


class ScriptedLoadableModule:
    def __init__(self, parent: Any) -> None:
        self.parent = parent


class ScriptedLoadableModuleWidget:
    def __init__(self, parent: Any = None) -> None:
        super().__init__()  # calls VTKObservationMixin's too, as Slicer's does
        self.moduleName = type(self).__name__.removesuffix("Widget")
        self.parent, self.layout = parent, parent.layout()

    def resourcePath(self, name: str) -> str:
        return str(Path(slicer.util.modulePath(self.moduleName)).parent / "Resources" / name)

    def setup(self) -> None:
        """The reload and test section, for developers only, is left out."""


class ScriptedLoadableModuleLogic:
    def __init__(self, parent: Any = None) -> None:
        super().__init__()
        self.moduleName = type(self).__name__.removesuffix("Logic")

    def getParameterNode(self) -> Any:
        """The scene's only one of the module, made if need be; Slicer's ``ScriptedLoadableModule.py`` was read."""
        node = slicer.mrmlScene.GetSingletonNode(self.moduleName, "vtkMRMLScriptedModuleNode")
        if node is None:
            node = slicer.mrmlScene.CreateNodeByClass("vtkMRMLScriptedModuleNode")
            node.UnRegister(None)
            node.SetSingletonTag(self.moduleName)
            node.SetName(slicer.mrmlScene.GenerateUniqueName(self.moduleName))
            node = slicer.mrmlScene.AddNode(node)
        node.SetAttribute("ModuleName", self.moduleName)  # a closed scene takes it away
        return node


class ScriptedLoadableModuleTest(unittest.TestCase):
    def delayDisplay(self, message: str, *_arguments: Any) -> None:
        print(message)


def load_module(path: Path) -> types.ModuleType:
    """Import a module's file and make its module object, as Slicer does at start-up; the same one the next time."""
    name = path.stem
    pythonqt.find_modules_below(path.parent)
    module = importlib.import_module(name)
    if hasattr(slicer.modules, name.lower()):
        return module
    parent = types.SimpleNamespace(name=name, path=str(path))
    setattr(slicer.modules, name.lower(), parent)
    getattr(module, name)(parent)
    return module


def open_module(module: types.ModuleType, width: int = 400) -> Any:
    """The module's widget object, as after choosing the module; its ``parent`` is the panel."""
    pythonqt.collect_slot_errors()
    panel = widgets.qMRMLWidget()
    QtWidgets.QVBoxLayout(panel).setContentsMargins(0, 0, 0, 0)
    panel.resize(width, 100)
    widget = getattr(module, module.__name__ + "Widget")(panel)
    widget.setup()
    main_window.show(module.__name__, widget)
    widget.enter()
    panel.show()
    slicer.app.processEvents()
    return widget


def close_module(widget: Any) -> None:
    """As closing Slicer; the panel's widgets are gone at once."""
    widget.cleanup()
    shiboken6.delete(widget.parent)


def _module(name: str, **content: Any) -> types.ModuleType:
    module = types.ModuleType(name)
    vars(module).update(content)
    sys.modules[name] = module
    return module


def _keep_hierarchy(*_arguments: Any) -> None:
    """In Slicer a scene always has its subject hierarchy."""
    slicer.vtkMRMLSubjectHierarchyNode.GetSubjectHierarchyNode(slicer.mrmlScene)


def _let_scenes_be_loaded(folder: str) -> None:
    """The scene asks Slicer for a folder to unpack files in."""
    logic = slicer.vtkMRMLRemoteIOLogic()
    logic.GetCacheManager().SetRemoteCacheDirectory(folder)
    logic.SetMRMLScene(slicer.mrmlScene)
    logic.AddDataIOToScene()
    slicer.app.remoteIOLogic = logic  # the scene keeps no reference of its own


def _keep_settings_apart(folder: str) -> None:
    """Settings end with the process, and are nobody's own."""
    slicer.app.setOrganizationName("RadiomicsLLM tests")
    QtCore.QSettings.setDefaultFormat(QtCore.QSettings.IniFormat)
    QtCore.QSettings.setPath(QtCore.QSettings.IniFormat, QtCore.QSettings.UserScope, folder)


def _forbidden(*_arguments: Any, **_options: Any) -> None:
    raise AssertionError("Slicer's own dialogs ask once more and cannot be cancelled: see SlicerPackages.")


def _start() -> None:
    sys.modules["qt"] = pythonqt.qt_module(QUiLoader=widgets.QUiLoader)
    _module("ctk", **widgets.CTK)
    _module("SampleData", SampleDataLogic=sample_data.SampleDataLogic, SampleDataSource=sample_data.SampleDataSource)
    _module("DICOMLib", DICOMUtils=dicom.DICOMUtils)
    slicer.dicomDatabase = dicom.DicomDatabase()
    slicer.app = qSlicerApplication()
    slicer.app.folder = tempfile.TemporaryDirectory()
    _keep_settings_apart(slicer.app.folder.name)
    slicer.mrmlScene = slicer.vtkMRMLScene()
    slicer.modules = _module("slicer.modules")
    slicer.modules.dicomPlugins = dict.fromkeys(dicom.PLUGINS, object)
    slicer.app.applicationLogic().SetMRMLScene(slicer.mrmlScene)
    for name, logic_class in _LOGICS.items():
        logic = getattr(slicer, logic_class)()
        logic.SetMRMLScene(slicer.mrmlScene)
        logic.SetMRMLApplicationLogic(slicer.app.applicationLogic())
        slicer.app.applicationLogic().SetModuleLogic(name, logic)
        setattr(slicer.modules, name.lower(), types.SimpleNamespace(name=name, logic=lambda logic=logic: logic))
    slicer.modules.colors.logic().AddDefaultColorNodes()
    _let_scenes_be_loaded(slicer.app.folder.name)
    slicer.app.makeLayout()
    main_window.install()
    _keep_hierarchy()
    slicer.mrmlScene.AddObserver(slicer.mrmlScene.EndCloseEvent, _keep_hierarchy)
    # The names in Slicer 5.12's ``Base/Python/slicer/packaging.py``. This module leaves all but one of them alone.
    slicer.packaging = _module("slicer.packaging", isPipInstallInProgress=lambda: False, pip_ensure=_forbidden)
    slicer.packaging.pip_install = slicer.packaging.pip_uninstall = _forbidden
    slicer.i18n = _module("slicer.i18n", tr=lambda text: text, translate=lambda context, text: text)
    bases = (
        ScriptedLoadableModule,
        ScriptedLoadableModuleWidget,
        ScriptedLoadableModuleLogic,
        ScriptedLoadableModuleTest,
    )
    slicer.ScriptedLoadableModule = _module("slicer.ScriptedLoadableModule", **{base.__name__: base for base in bases})


_start()
