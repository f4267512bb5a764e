"""Stand-ins for the widgets of qMRML and CTK that the module uses: the same names, properties and signals.

Those of CTK were checked against ``Libs/Widgets/ctkCollapsibleButton.cpp``, ``ctkPathLineEdit.h`` and
``ctkMessageBox.h``.
"""

from __future__ import annotations

from typing import Any, ClassVar

import slicer
import vtk
from PySide6 import QtCore, QtGui, QtUiTools, QtWidgets
from PySide6.QtCore import Property, Signal
from shiboken6 import isValid


def _stored(kind: Any, name: str, default: Any) -> Property:
    """A Qt property that is no more than a value; ``_refresh`` is called when it is set."""

    def put(self: QtCore.QObject, value: Any) -> None:
        vars(self)["_" + name] = value
        self._refresh()

    return Property(kind, lambda self: vars(self).get("_" + name, default), put)


def _row(widget: QtWidgets.QWidget, *children: QtWidgets.QWidget) -> None:
    layout = QtWidgets.QHBoxLayout(widget)
    layout.setContentsMargins(0, 0, 0, 0)
    for child in children:
        layout.addWidget(child)


class qMRMLWidget(QtWidgets.QWidget):
    """Hands its scene to the widgets below it, for which the connections of the .ui file care in Slicer."""

    mrmlSceneChanged = Signal(object)

    def setMRMLScene(self, scene: Any) -> None:
        for child in self.findChildren(QtWidgets.QWidget):
            if hasattr(child, "setMRMLScene"):
                child.setMRMLScene(scene)
        self.mrmlSceneChanged.emit(scene)


HEARD = {
    "Slicer 5.10": frozenset({"row"}),
    "Slicer 5.12 with Qt 5": frozenset({"row", "text"}),
    "Slicer 5.12 with Qt 6": frozenset({"text"}),
}
"""What Qt tells a `qMRMLNodeComboBox`."""


class qMRMLNodeComboBox(QtWidgets.QWidget):
    """Lists the nodes of some classes; the first one that comes is chosen unless `noneEnabled`.

    Checked against ``Libs/MRML/Widgets/qMRMLNodeComboBox.cxx`` and ``qMRMLSceneModel.cxx`` of Slicer's main branch
    after 5.12, and Qt's ``qcombobox.cpp``. As there, it is a QComboBox whose rows come and go with the nodes (just
    before, and all at the end where the scene is closed), so that Qt decides what is chosen when the chosen node goes.
    It signals whenever that combo box tells of another text, also where the chosen node was only renamed. Qt 5 tells so
    at every other row, Qt 6 only where the text differs; Slicer 5.10 heard of other rows alone.
    """

    currentNodeChanged = Signal(object)
    nodeActivated = Signal(object)
    heard: ClassVar[frozenset[str]] = frozenset({"row", "text"})
    """What Qt tells this widget: of another row, and of another text; see `HEARD`."""

    def __init__(self, parent: QtWidgets.QWidget | None = None) -> None:
        super().__init__(parent)
        self._scene: Any = None
        self._observed: dict[str, tuple[Any, int]] = {}
        self._box = QtWidgets.QComboBox()
        self._box.currentIndexChanged.connect(lambda _row: "row" in self.heard and self._emit())
        self._box.currentTextChanged.connect(lambda _text: "text" in self.heard and self._emit())
        self._box.activated.connect(lambda _index: self.nodeActivated.emit(self.currentNode()))
        _row(self, self._box)
        self.setFocusProxy(self._box)

    def setMRMLScene(self, scene: Any) -> None:
        self._scene = scene
        scene.AddObserver(scene.NodeAddedEvent, self._when_alive(self._on_added))
        scene.AddObserver(scene.NodeAboutToBeRemovedEvent, self._when_alive(self._on_removing))
        scene.AddObserver(scene.EndCloseEvent, lambda *_: isValid(self) and self._refresh())
        self._refresh()

    def _when_alive(self, function: Any) -> Any:
        """An observer that outlives this widget."""

        @vtk.calldata_type(vtk.VTK_OBJECT)
        def observe(_caller: object, _event: object, node: Any) -> None:
            if isValid(self):
                function(node)

        return observe

    def currentNode(self) -> Any:
        node_id = self._box.currentData
        return self._scene.GetNodeByID(node_id) if self._scene and node_id else None

    def setCurrentNode(self, node: Any) -> None:
        row = self._box.findData(node.GetID()) if node is not None else -1
        self._box.setCurrentIndex(0 if row < 0 and self.noneEnabled else row)

    def nodeCount(self) -> int:
        return self._box.count - int(self.noneEnabled)

    def _emit(self) -> None:
        node, index = self.currentNode(), self._box.currentIndex
        if node is None and index != (0 if self.noneEnabled else -1):
            self._box.setCurrentIndex(self._box.count - 1)  # a row whose node is gone: the last one
        else:
            self.currentNodeChanged.emit(node)

    def _remove(self, row: int) -> None:
        """First Qt chooses the next row, or the last one; where that is no node, none is chosen."""
        self._box.removeItem(row)
        if self.currentNode() is None:
            self.setCurrentNode(None)

    def _on_added(self, node: Any) -> None:
        if node.GetID() not in self._observed and self._is_of_a_wanted_class(node):
            tag = node.AddObserver(vtk.vtkCommand.ModifiedEvent, lambda *_: isValid(self) and self._on_modified(node))
            self._observed[node.GetID()] = node, tag
        self._on_modified(node)

    def _on_removing(self, node: Any) -> None:
        observed = self._observed.pop(node.GetID(), None)
        if observed:
            node.RemoveObserver(observed[1])
        row = self._box.findData(node.GetID())
        if row >= 0 and not self._scene.IsClosing():  # then all rows go at its end
            self._remove(row)

    def _on_modified(self, node: Any) -> None:
        row = self._box.findData(node.GetID())
        listed = self._is_of_a_wanted_class(node) and not node.GetHideFromEditors()
        if listed and row < 0:
            self._box.addItem(node.GetName(), node.GetID())
        elif listed:
            self._box.setItemText(row, node.GetName())
        elif row >= 0:
            self._remove(row)

    def _refresh(self) -> None:
        if self._scene is None:
            return
        self._box.clear()
        if self.noneEnabled:
            self._box.addItem("None", "")
        for index in range(self._scene.GetNumberOfNodes()):
            self._on_added(self._scene.GetNthNode(index))

    def _is_of_a_wanted_class(self, node: Any) -> bool:
        if self.showChildNodeTypes:
            return any(node.IsA(kind) for kind in self.nodeTypes)
        return node.GetClassName() in self.nodeTypes

    nodeTypes = _stored("QStringList", "nodeTypes", [])
    noneEnabled = _stored(bool, "noneEnabled", False)
    showChildNodeTypes = _stored(bool, "showChildNodeTypes", True)
    addEnabled = _stored(bool, "addEnabled", True)
    removeEnabled = _stored(bool, "removeEnabled", True)


class ctkCollapsibleButton(QtWidgets.QAbstractButton):
    """A heading that folds the widgets below it away when it is clicked."""

    contentsCollapsed = Signal(bool)
    _HEADING = 24

    def __init__(self, parent: QtWidgets.QWidget | None = None) -> None:
        super().__init__(parent)
        self._collapsed = self._folding = False
        self._wanted: dict[QtCore.QObject, bool] = {}
        self.setContentsMargins(0, self._HEADING, 0, 0)
        self.setSizePolicy(QtWidgets.QSizePolicy.Minimum, QtWidgets.QSizePolicy.Preferred)
        self.clicked.connect(lambda: self._collapse(not self._collapsed))

    def _collapse(self, collapsed: bool) -> None:
        if collapsed == self._collapsed:
            return
        self._collapsed = collapsed
        self._show_contents()
        self.contentsCollapsed.emit(collapsed)

    collapsed = Property(bool, lambda self: self._collapsed, _collapse)

    def _show_contents(self) -> None:
        for child in self.children():
            if child.isWidgetType():
                self._fold(child)
        self.updateGeometry()

    def _fold(self, child: Any) -> None:
        """Hide, or show what its owner wants to be seen."""
        self._folding = True
        child.setVisible(not self._collapsed and self._wanted.get(child, True))
        self._folding = False

    def childEvent(self, event: QtCore.QChildEvent) -> None:
        super().childEvent(event)
        child = event.child()
        if event.type() == QtCore.QEvent.ChildPolished and child.isWidgetType():
            self._wanted.setdefault(
                child, not child.testAttribute(QtCore.Qt.WA_WState_ExplicitShowHide) or not child.isHidden()
            )
            child.installEventFilter(self)
            if self._collapsed:
                self._fold(child)

    def eventFilter(self, child: QtCore.QObject, event: QtCore.QEvent) -> bool:
        """What the owner of a child shows or hides meanwhile counts when the section unfolds."""
        kinds = {QtCore.QEvent.ShowToParent: True, QtCore.QEvent.HideToParent: False}
        if event.type() in kinds and not self._folding:
            self._wanted[child] = kinds[event.type()]
            if self._collapsed:
                self._fold(child)
        return False

    def sizeHint(self) -> QtCore.QSize:
        return self._size(QtWidgets.QLayout.totalSizeHint)

    def minimumSizeHint(self) -> QtCore.QSize:
        return self._size(QtWidgets.QLayout.totalMinimumSize)

    def _size(self, of: Any) -> QtCore.QSize:
        heading = QtCore.QSize(120, self._HEADING)
        if self._collapsed or self.layout() is None:
            return heading
        return of(self.layout()).expandedTo(heading)

    def paintEvent(self, event: QtGui.QPaintEvent) -> None:
        painter = QtGui.QPainter(self)
        heading = QtCore.QRect(0, 0, self.rect.width(), self._HEADING - 4)
        painter.fillRect(heading, self.palette.color(QtGui.QPalette.Button).darker(108))
        arrow = "▸" if self._collapsed else "▾"
        painter.setPen(self.palette.color(QtGui.QPalette.ButtonText))
        painter.drawText(heading.adjusted(8, 0, 0, 0), QtCore.Qt.AlignVCenter, f"{arrow}  {self.text}")


class ctkPathLineEdit(QtWidgets.QWidget):
    """A line for a path, with a button that opens a file dialog in Slicer."""

    currentPathChanged = Signal(str)
    Dirs, Files = 1, 2

    def __init__(self, parent: QtWidgets.QWidget | None = None) -> None:
        super().__init__(parent)
        self._line = QtWidgets.QLineEdit()
        self._line.textChanged.connect(self.currentPathChanged)
        browse = QtWidgets.QToolButton()
        browse.setText("…")
        _row(self, self._line, browse)
        self.setFocusProxy(self._line)

    def _refresh(self) -> None:
        """Nothing to show of its properties."""

    filters = _stored(int, "filters", 0)
    currentPath = Property(str, lambda self: self._line.text, lambda self, path: self._line.setText(path))


class ctkMessageBox(QtWidgets.QMessageBox):
    """Which `slicer.util` asks with; the box "Don't show again", which it adds to Qt's, is left out."""


CTK = {widget.__name__: widget for widget in (ctkCollapsibleButton, ctkPathLineEdit, ctkMessageBox)}
QMRML = {widget.__name__: widget for widget in (qMRMLWidget, qMRMLNodeComboBox)}


class QUiLoader(QtUiTools.QUiLoader):
    """Makes the widgets above where a .ui file names them."""

    def createWidget(self, kind: str, parent: QtWidgets.QWidget | None = None, name: str = "") -> QtWidgets.QWidget:
        adapter = {**CTK, **QMRML}.get(kind)
        if adapter is None and not hasattr(QtWidgets, kind):
            raise NotImplementedError(f"{kind} has no stand-in: write one in {__file__}")
        widget = adapter(parent) if adapter else super().createWidget(kind, parent, name)
        widget.setObjectName(name)
        return widget


for _name, _widget in QMRML.items():
    setattr(slicer, _name, _widget)
