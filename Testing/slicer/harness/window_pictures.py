"""A picture of Slicer's window: the module's panel at the left, and what the slice views show at the right."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import slicer
from PIL import Image
from PySide6.QtCore import QRect, Qt
from PySide6.QtGui import QColor, QImage, QPainter, QPalette
from PySide6.QtWidgets import QMessageBox

PANEL_WIDTH, VIEWS_WIDTH = 400, 560
WIDTH = PANEL_WIDTH + VIEWS_WIDTH
_BELOW, _LOWEST = 12, 440
_COLOURS = 256  # a third of the size, and enough for text and grey tissue


def window_picture(panel: Any) -> QImage:
    """The module's widget object, as high as what it shows, beside the views."""
    height = _fit(panel.parent)
    picture = QImage(WIDTH, height, QImage.Format_RGB32)
    picture.fill(slicer.app.palette().color(QPalette.Window))
    painter = QPainter(picture)
    painter.drawPixmap(0, 0, panel.parent.grab())
    painter.drawImage(PANEL_WIDTH, 0, _views(height))
    painter.end()
    return picture


def with_question(window: QImage, text: str, title: str) -> QImage:
    """The window below a question of ``slicer.util.confirmOkCancelDisplay``, with its title as a first line."""
    box = QMessageBox(QMessageBox.Question, title, text, QMessageBox.Ok | QMessageBox.Cancel)
    box.show()  # only then it knows its size
    slicer.app.processEvents()
    asked = box.grab()
    box.close()
    picture, bar = QImage(window), 28
    place = QRect(0, 0, asked.width(), asked.height() + bar)
    place.moveCenter(picture.rect().center())
    painter = QPainter(picture)
    painter.fillRect(picture.rect(), QColor(0, 0, 0, 90))
    painter.fillRect(place.adjusted(-1, -1, 1, 1), QColor("#606060"))
    painter.fillRect(place, QColor("#d8d8d8"))
    painter.setPen(QColor("#202020"))
    painter.drawText(QRect(place.left(), place.top(), place.width(), bar), Qt.AlignCenter, title)
    painter.drawPixmap(place.left(), place.top() + bar, asked)
    painter.end()
    return picture


def save(picture: QImage, path: Path) -> None:
    """As a PNG of few colours."""
    rgb = picture.convertToFormat(QImage.Format_RGB888)
    pixels = Image.frombuffer(
        "RGB", (rgb.width(), rgb.height()), bytes(rgb.constBits()), "raw", "RGB", rgb.bytesPerLine(), 1
    )
    pixels.quantize(_COLOURS, Image.Quantize.MAXCOVERAGE, dither=Image.Dither.NONE).save(path, optimize=True)


def _fit(widget: Any) -> int:
    """Make the panel as high as what it shows, and return how high that is."""
    widget.resize(PANEL_WIDTH, 100)
    for _ in range(3):
        slicer.app.processEvents()
        # As Slicer's scroll area does: wrapped text is higher than its hint.
        height = max(widget.sizeHint().height(), widget.layout().totalHeightForWidth(PANEL_WIDTH), _LOWEST)
        widget.resize(PANEL_WIDTH, height + _BELOW)
    slicer.app.processEvents()
    return int(widget.height)


def _views(height: int) -> QImage:
    """What they show is fitted into them anew."""
    manager = slicer.app.layoutManager()
    manager.resize(VIEWS_WIDTH, height)
    manager.resetSliceViews()
    pixels = manager.picture()
    return QImage(pixels.tobytes(), pixels.shape[1], pixels.shape[0], 3 * pixels.shape[1], QImage.Format_RGB888).copy()
