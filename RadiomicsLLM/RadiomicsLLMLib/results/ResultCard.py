"""One segment's result for the eye."""

from __future__ import annotations

from collections.abc import Callable
from typing import TYPE_CHECKING

import ctk
import qt
from slicer.i18n import tr as _

from ..panel.PanelWidgets import makeButton, makeFolded, makeLabel
from .Pictures import CALL_COLORS, NO_CALL_COLOR, probabilityPicture, sharesPicture
from .SegmentResult import SegmentResult

if TYPE_CHECKING:
    from radllm_backend import Prediction

_MOST_SHARES = 8


def resultCard(result: SegmentResult, onPlot: Callable[[SegmentResult], None]) -> qt.QFrame:
    """A frame with all that is known of a segment; text is shown as it is, never read as HTML.

    Args:
        onPlot: called when the user wants the chart in Slicer's plot view.
    """
    card = qt.QFrame()
    card.objectName = "resultCard"
    card.setFrameShape(qt.QFrame.StyledPanel)
    layout = qt.QVBoxLayout(card)
    layout.setSpacing(6)
    layout.addLayout(_heading(result))
    prediction = result.prediction
    if prediction is None:
        layout.addWidget(makeLabel("problemLabel", "⚠ " + result.problem))
        return card
    ink = card.palette.color(qt.QPalette.WindowText)
    layout.addWidget(_picture(probabilityPicture(prediction, ink), "probabilityPicture", _explained(prediction)))
    layout.addWidget(makeLabel("probabilityLabel", _explained(prediction)))
    for caution in prediction.cautions:
        layout.addWidget(makeLabel("cautionLabel", "⚠ " + caution.text))
    shares = [share for share in prediction.strongest() if share.effect is not None][:_MOST_SHARES]
    if shares:
        layout.addWidget(
            makeLabel("sharesLabel", _("What moved it (towards benign to the left, malignant to the right):"))
        )
        words = ", ".join(f"{share.name} {share.effect:+.2f}" for share in shares)
        layout.addWidget(_picture(sharesPicture(shares, ink), "sharesPicture", words))
        layout.addWidget(_plotButton(result, onPlot))
    layout.addWidget(_prompt(prediction))
    layout.addWidget(makeLabel("noticeLabel", prediction.notice, "font-style: italic"))
    return card


def _heading(result: SegmentResult) -> qt.QHBoxLayout:
    """The segment's name at the left, the call at the right."""
    layout = qt.QHBoxLayout()
    layout.addWidget(makeLabel("segmentLabel", result.segmentName, "font-weight: bold"), 1)
    word = result.prediction.call if result.prediction else _("not classified")
    # White on its own ground, so that it can be read in Slicer's light and dark style.
    style = f"background: {CALL_COLORS.get(word, NO_CALL_COLOR)}; color: white; border-radius: 4px; padding: 2px 6px"
    call = makeLabel("callLabel", word, style + "; font-weight: bold")
    call.wordWrap = False
    layout.addWidget(call, 0)
    return layout


def _explained(prediction: Prediction) -> str:
    from radllm_backend.models.prediction import percent

    return _("Probability of malignancy {probability}. {rule} Model: {model}.").format(
        probability=percent(prediction.probability), rule=prediction.rule(), model=prediction.model.name
    )


def _picture(pixmap: qt.QPixmap, name: str, words: str) -> qt.QLabel:
    label = qt.QLabel()
    label.objectName = name
    label.setPixmap(pixmap)
    label.accessibleName = words
    return label


def _plotButton(result: SegmentResult, onPlot: Callable[[SegmentResult], None]) -> qt.QPushButton:
    about = _("Opens a layout with this chart, from where it can be saved.")
    return makeButton("plotButton", _("Show in the plot view"), about, lambda *_arguments: onPlot(result))


def _prompt(prediction: Prediction) -> ctk.ctkCollapsibleButton:
    """What the language model read, word for word, folded away."""
    button = makeFolded("promptButton", _("What the model read"))
    layout = qt.QVBoxLayout(button)
    layout.addWidget(makeLabel("promptLabel", prediction.prompt))
    return button
