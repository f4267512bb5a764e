"""Results for the eye: one card a segment."""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING

import ctk
import qt
from slicer.i18n import tr as _

from .SegmentResult import SegmentResult

if TYPE_CHECKING:
    from radllm_backend import Prediction

_COLORS = {"likely benign": "#1f7a6f", "likely malignant": "#b83246"}
_NO_CALL_COLOR = "#6b6b6b"


class ResultPanel:
    """Fills a layout with a card for each result; text is shown as it is, never read as HTML."""

    def __init__(self, layout: qt.QVBoxLayout) -> None:
        self._layout = layout
        self._cards: list[qt.QFrame] = []

    def clear(self) -> None:
        """Remove the cards."""
        for card in self._cards:
            self._layout.removeWidget(card)
            card.setParent(None)
            card.deleteLater()
        self._cards = []

    def show(self, results: Sequence[SegmentResult]) -> None:
        """Replace the cards."""
        self.clear()
        for result in results:
            card = _card(result)
            self._layout.addWidget(card)
            self._cards.append(card)


def _card(result: SegmentResult) -> qt.QFrame:
    card = qt.QFrame()
    card.objectName = "resultCard"
    card.setFrameShape(qt.QFrame.StyledPanel)
    layout = qt.QVBoxLayout(card)
    layout.setSpacing(6)
    prediction = result.prediction
    layout.addLayout(_heading(result))
    if prediction is None:
        layout.addWidget(_label("⚠ " + result.problem, "problemLabel"))
        return card
    layout.addWidget(_bar(prediction))
    layout.addWidget(_label(_explained(prediction), "probabilityLabel"))
    for caution in prediction.cautions:
        layout.addWidget(_label("⚠ " + caution.text, "cautionLabel"))
    layout.addWidget(_prompt(prediction))
    layout.addWidget(_label(prediction.notice, "noticeLabel", "font-style: italic"))
    return card


def _heading(result: SegmentResult) -> qt.QHBoxLayout:
    """The segment's name at the left, the call at the right."""
    layout = qt.QHBoxLayout()
    layout.addWidget(_label(result.segmentName, "segmentLabel", "font-weight: bold"), 1)
    word = result.prediction.call if result.prediction else _("not classified")
    # White on its own ground, so that it can be read in Slicer's light and dark style.
    style = f"background: {_COLORS.get(word, _NO_CALL_COLOR)}; color: white; border-radius: 4px; padding: 2px 6px"
    call = _label(word, "callLabel", style + "; font-weight: bold")
    call.wordWrap = False
    layout.addWidget(call, 0)
    return layout


def _bar(prediction: Prediction) -> qt.QProgressBar:
    bar = qt.QProgressBar()
    bar.objectName = "probabilityBar"
    bar.maximum = 1000
    bar.value = round(1000 * prediction.probability)
    bar.textVisible = False
    bar.setFixedHeight(10)
    bar.styleSheet = (
        "QProgressBar { border: none; border-radius: 5px; background: rgba(128, 128, 128, 60); }"
        f"QProgressBar::chunk {{ border-radius: 5px; background: {_COLORS[prediction.call]}; }}"
    )
    return bar


def _explained(prediction: Prediction) -> str:
    from radllm_backend.prediction import percent

    return _("Probability of malignancy {probability}; likely malignant from {threshold} on, says {model}.").format(
        probability=percent(prediction.probability),
        threshold=percent(prediction.threshold),
        model=prediction.model.name,
    )


def _prompt(prediction: Prediction) -> ctk.ctkCollapsibleButton:
    """What the language model read, word for word, folded away."""
    button = ctk.ctkCollapsibleButton()
    button.objectName = "promptButton"
    button.text = _("What the model read")
    button.collapsed = True
    layout = qt.QVBoxLayout(button)
    layout.addWidget(_label(prediction.prompt, "promptLabel"))
    return button


def _label(text: str, name: str, style: str = "") -> qt.QLabel:
    label = qt.QLabel()
    label.objectName = name
    label.setTextFormat(qt.Qt.PlainText)
    label.text = text
    label.wordWrap = True
    label.setTextInteractionFlags(qt.Qt.TextSelectableByMouse)
    label.styleSheet = style
    return label
