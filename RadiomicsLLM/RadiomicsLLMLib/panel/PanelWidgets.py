"""The plain widgets that panels are made of."""

from __future__ import annotations

from collections.abc import Callable, Sequence

import ctk
import qt

_MOST_ROWS_SHOWN = 6
_HEADER = 26  # pixels, with the frame


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


def enable(button: qt.QPushButton, obstacle: str, about: str) -> None:
    """Enable a button, or say in its tooltip why it is not."""
    button.enabled = not obstacle
    button.toolTip = obstacle or about


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


def makeLineEdit(name: str, toolTip: str, placeholder: str = "") -> qt.QLineEdit:
    """A line for words; the placeholder is shown while it is empty."""
    edit = qt.QLineEdit()
    edit.objectName = name
    edit.toolTip = toolTip
    edit.placeholderText = placeholder
    return edit


def makeTable(name: str, headers: Sequence[str], toolTip: str) -> qt.QTableWidget:
    """A table of rows to choose one of, not to edit; it is hidden as long as it is empty, see `fitHeight`."""
    table = qt.QTableWidget(0, len(headers))
    table.objectName = name
    table.setHorizontalHeaderLabels(list(headers))
    table.toolTip = toolTip
    table.setSelectionBehavior(qt.QAbstractItemView.SelectRows)
    table.setSelectionMode(qt.QAbstractItemView.SingleSelection)
    table.setEditTriggers(qt.QAbstractItemView.NoEditTriggers)
    table.horizontalHeader().setHighlightSections(False)  # bold words need more than their column has
    table.verticalHeader().hide()
    table.setSizePolicy(qt.QSizePolicy.Expanding, qt.QSizePolicy.Fixed)
    table.hide()
    return table


def fitHeight(table: qt.QTableWidget) -> None:
    """As high as its rows, up to six; hidden without any."""
    rows = min(_MOST_ROWS_SHOWN, table.rowCount)
    table.setFixedHeight(_HEADER + rows * table.verticalHeader().defaultSectionSize)
    table.setVisible(rows > 0)
