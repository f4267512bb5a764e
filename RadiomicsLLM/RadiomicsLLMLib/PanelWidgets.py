"""The plain widgets that panels are made of."""

from __future__ import annotations

from collections.abc import Callable

import ctk
import qt


def makeLabel(name: str, text: str = "", style: str = "") -> qt.QLabel:
    """Text that is shown as it is, never read as HTML; long text is wrapped, and can be selected."""
    label = qt.QLabel()
    label.objectName = name
    label.setTextFormat(qt.Qt.PlainText)
    label.text = text
    label.wordWrap = True
    label.setTextInteractionFlags(qt.Qt.TextSelectableByMouse)
    label.styleSheet = style
    return label


def makeButton(name: str, text: str, toolTip: str, clicked: Callable[..., None]) -> qt.QPushButton:
    """A button that calls something, with an argument that does not matter."""
    button = qt.QPushButton()
    button.objectName = name
    button.text = text
    button.toolTip = toolTip
    button.connect("clicked(bool)", clicked)
    return button


def makeRow(*widgets: qt.QWidget) -> qt.QHBoxLayout:
    """Widgets side by side."""
    layout = qt.QHBoxLayout()
    for widget in widgets:
        layout.addWidget(widget)
    return layout


def makeFolded(name: str, text: str) -> ctk.ctkCollapsibleButton:
    """A section that is folded away at first."""
    section = ctk.ctkCollapsibleButton()
    section.objectName = name
    section.text = text
    section.collapsed = True
    return section


def makePathEdit(name: str, filters: int, toolTip: str) -> ctk.ctkPathLineEdit:
    """A line for a path, with a button for a dialog."""
    edit = ctk.ctkPathLineEdit()
    edit.objectName = name
    edit.filters = filters
    edit.toolTip = toolTip
    return edit
