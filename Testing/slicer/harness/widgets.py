"""Stand-ins for the widgets of qMRML and CTK that the module uses: the same names, properties and signals."""

from __future__ import annotations

from typing import Any

import slicer
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


class qMRMLNodeComboBox(QtWidgets.QWidget):
    """Lists the nodes of some classes; the first one is current unless `noneEnabled`."""

    currentNodeChanged = Signal(object)

    def __init__(self, parent: QtWidgets.QWidget | None = None) -> None:
        super().__init__(parent)
        self._scene: Any = None
        self._nodes: list[Any] = []
        self._current: Any = None
        self._box = QtWidgets.QComboBox()
        self._box.activated.connect(lambda index: self.setCurrentNode(self._nodes[index]))
        _row(self, self._box)
        self.setFocusProxy(self._box)

    def setMRMLScene(self, scene: Any) -> None:
        self._scene = scene
        for event in (scene.NodeAddedEvent, scene.NodeRemovedEvent, scene.EndCloseEvent):
            scene.AddObserver(event, self._on_scene_changed)
        self._refresh()

    def _on_scene_changed(self, *_arguments: object) -> None:
        if isValid(self):  # the observer outlives this widget
            self._refresh()

    def currentNode(self) -> Any:
        return self._current

    def setCurrentNode(self, node: Any) -> None:
        if node is not None and node not in self._nodes:
            return
        self._box.setCurrentIndex(self._nodes.index(node) if node in self._nodes else -1)
        if node is not self._current:
            self._current = node
            self.currentNodeChanged.emit(node)

    def _refresh(self) -> None:
        if self._scene is None:
            return
        nodes = [self._scene.GetNthNode(index) for index in range(self._scene.GetNumberOfNodes())]
        self._nodes = ([None] if self.noneEnabled else []) + [node for node in nodes if self._is_listed(node)]
        self._box.clear()
        self._box.addItems([node.GetName() if node else "None" for node in self._nodes])
        first = self._nodes[0] if self._nodes else None
        self.setCurrentNode(self._current if self._current in self._nodes else first)

    def _is_listed(self, node: Any) -> bool:
        if node.GetHideFromEditors():
            return False
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
        self.setSizePolicy(QtWidgets.QSizePolicy.Preferred, QtWidgets.QSizePolicy.Preferred)
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


CTK = {widget.__name__: widget for widget in (ctkCollapsibleButton, ctkPathLineEdit)}
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
