"""The two small pictures of a result: the probability on its scale, and what moved it."""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING

import qt

if TYPE_CHECKING:
    from radllm_backend import Prediction
    from radllm_backend.models.prediction import DescriptorShare, FeatureShare

CALL_COLORS = {"likely benign": "#1f6aa5", "uncertain": "#7a5200", "likely malignant": "#b4451f"}
"""Those of the report's page; the word stands beside each of them."""
NO_CALL_COLOR = "#6b6b6b"
WIDTH = 340
"""Of either picture: a panel of 400 pixels without its margins."""
_SCALE_HEIGHT, _BAR_TOP, _BAR_HEIGHT = 34, 4, 12
_ROW, _NAME, _NUMBER, _GAP, _BETWEEN = 19, 168, 44, 6, 5
_SHARPNESS = 2  # pixels a point, for dense screens


def probabilityPicture(prediction: Prediction, ink: qt.QColor) -> qt.QPixmap:
    """A bar from 0 to 100%: the probability filled, the uncertain band hatched, the threshold as a line.

    Args:
        ink: of the words, which have to be read on the panel's own ground.
    """
    picture, painter = _begin(_SCALE_HEIGHT)
    painter.fillRect(0, _BAR_TOP, WIDTH, _BAR_HEIGHT, qt.QColor(128, 128, 128, 70))
    if prediction.band:
        low, high = round(WIDTH * prediction.band.low), round(WIDTH * prediction.band.high)
        hatching = qt.QColor(ink)
        hatching.setAlpha(150)
        brush = qt.QBrush(hatching, qt.Qt.BDiagPattern)
        painter.fillRect(qt.QRect(low, _BAR_TOP, max(2, high - low), _BAR_HEIGHT), brush)
    filled = max(2, round(WIDTH * prediction.probability))
    painter.fillRect(0, _BAR_TOP + 3, filled, _BAR_HEIGHT - 6, qt.QColor(CALL_COLORS[prediction.call]))
    at = min(WIDTH - 2, round(WIDTH * prediction.threshold))
    painter.fillRect(at, 0, 2, _BAR_TOP + _BAR_HEIGHT + 4, ink)
    painter.setPen(ink)
    for text, flag in (("0%", qt.Qt.AlignLeft), ("100%", qt.Qt.AlignRight)):
        painter.drawText(qt.QRect(0, 18, WIDTH, 16), flag, text)
    painter.end()
    return picture


def sharesPicture(shares: Sequence[FeatureShare | DescriptorShare], ink: qt.QColor) -> qt.QPixmap:
    """A row for each feature: its name, a bar to the left (benign) or the right (malignant), and its effect."""
    heights = _heights([share.name for share in shares])
    picture, painter = _begin(sum(heights))
    largest = max([abs(share.effect or 0) for share in shares], default=0) or 1.0
    half = (WIDTH - _NAME - _NUMBER - 2 * _GAP) // 2
    middle = _NAME + _GAP + half
    for row, (share, height) in enumerate(zip(shares, heights, strict=True)):
        effect, top = share.effect or 0.0, sum(heights[:row])
        bar = top + (height - _BAR_HEIGHT) // 2
        length = max(1, round(half * abs(effect) / largest))
        color = CALL_COLORS["likely malignant" if effect > 0 else "likely benign"]
        painter.fillRect(middle if effect > 0 else middle - length, bar, length, _BAR_HEIGHT, qt.QColor(color))
        painter.setPen(ink)
        painter.drawText(qt.QRect(0, top, _NAME, height), qt.Qt.AlignVCenter | qt.Qt.TextWordWrap, share.name)
        number = qt.QRect(WIDTH - _NUMBER, top, _NUMBER, height)
        painter.drawText(number, qt.Qt.AlignRight | qt.Qt.AlignVCenter, f"{effect:+.2f}")
    painter.fillRect(middle, 0, 1, sum(heights), ink)
    painter.end()
    return picture


def _heights(names: Sequence[str]) -> list[int]:
    """Of their rows: a long name has several lines, for some names differ only in their last word."""
    _picture, painter = _begin(1)
    metrics = painter.fontMetrics()
    inside = (0, 0, _NAME, 1000)
    heights = [metrics.boundingRect(*inside, qt.Qt.TextWordWrap, name).height() for name in names]
    painter.end()
    return [max(_ROW, height + _BETWEEN) for height in heights]


def _begin(height: int) -> tuple[qt.QPixmap, qt.QPainter]:
    picture = qt.QPixmap(_SHARPNESS * WIDTH, _SHARPNESS * height)
    picture.setDevicePixelRatio(_SHARPNESS)
    picture.fill(qt.QColor(0, 0, 0, 0))
    return picture, qt.QPainter(picture)
