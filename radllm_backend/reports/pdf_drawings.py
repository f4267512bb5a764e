"""The drawings of a report on PDF pages: the probability bar, the effects, the strips and the calibration curve."""

from __future__ import annotations

from radllm_backend.models.prediction import CallWord, Prediction, percent
from radllm_backend.reports.content import STRIP_KEY, Content
from radllm_backend.reports.geometry import FeatureRow, Lane, Strip, probability_bar
from radllm_backend.reports.pdf_page import LINE, MARGIN, PAGE, PANEL, QUIET, SMALL, TEXT, TINY, Colour, Pages

CLASSES: dict[str, Colour] = {"benign": (31, 106, 165), "malignant": (180, 69, 31)}
CALLS: dict[CallWord, Colour] = {
    "likely benign": CLASSES["benign"],
    "uncertain": (122, 82, 0),
    "likely malignant": CLASSES["malignant"],
}
_ZONE = (240, 217, 164)
_LANE = 1.7
"""Height of a lane of a strip in mm."""
_CURVE = 34.0
"""Side of the calibration curve in mm."""


def probability_drawing(pages: Pages, prediction: Prediction, x: float, y: float, width: float) -> float:
    """The bar with threshold, uncertain band and scale; returns where it ends."""
    bar = probability_bar(prediction, x, width)
    pages.font(TINY, colour=QUIET)
    _label(pages, f"threshold {percent(prediction.threshold)}", bar.threshold, y, bar.anchor(bar.threshold))
    top, height = y + 4.5, 4.0
    pages.set_draw_color(*LINE)
    _filled(pages, PANEL, x, top, width, height, "DF")
    if bar.zone:
        _filled(pages, _ZONE, bar.zone[0], top - 0.8, bar.zone[1] - bar.zone[0], height + 1.6)
    _filled(pages, CALLS[prediction.call], x, top, bar.fill, height)
    scale = top + height + 1
    if bar.zone and prediction.band:
        pages.set_draw_color(*CALLS["uncertain"])
        pages.set_line_width(0.35)
        low, high = bar.zone
        pages.polyline([(low, top - 0.8), (low, scale + 0.4), (high, scale + 0.4), (high, top - 0.8)])
        _label(pages, f"uncertain {prediction.band}", bar.middle, scale + 0.8, bar.anchor(bar.middle))
        scale += 3.8
    if bar.reach:
        _reach(pages, bar.reach, top + height / 2)
    _upright(pages, bar.threshold, top - 1, top + height + 1, 0.6)
    for share, anchor in ((0.0, "start"), (0.5, "middle"), (1.0, "end")):
        _label(pages, f"{share:.0%}", x + share * width, scale, anchor)
    return scale + 3.5


def _reach(pages: Pages, reach: tuple[float, float], y: float) -> None:
    """From the lowest to the highest probability of other outlines."""
    pages.set_draw_color(*TEXT)
    pages.set_line_width(0.35)
    pages.line(reach[0], y, reach[1], y)
    for end in reach:
        pages.line(end, y - 0.8, end, y + 0.8)
    pages.set_line_width(0.2)


def _label(pages: Pages, text: str, place: float, y: float, anchor: str) -> None:
    """A short text that starts, ends or has its middle at a place."""
    width = pages.get_string_width(text)
    pages.set_xy(place - width * {"start": 0.0, "middle": 0.5, "end": 1.0}[anchor], y)
    pages.cell(width, pages.leading, text)


def effect_bar(pages: Pages, row: FeatureRow, x: float, middle: float, width: float) -> None:
    """To the right for malignant, to the left for benign."""
    centre, half = x + width / 2, width / 2
    _filled(pages, CLASSES[row.side], centre + half * row.start / 100, middle - 1.2, half * row.length / 100, 2.4)
    _upright(pages, centre, middle - 1.8, middle + 1.8, 0.2)


def strip_key(pages: Pages) -> None:
    """What the strips of the table mean."""
    pages.set_x(MARGIN)
    pages.cell(pages.get_string_width("Training lesions: "), pages.leading, "Training lesions: ")
    for label in ("benign", "malignant"):
        _lane(pages, Lane(label, (0, 100), (25, 75), 50), pages.get_x(), pages.get_y() + 0.8, 8)
        pages.set_x(pages.get_x() + 9)
        text = f"{label} (upper)   " if label == "benign" else f"{label} (lower)"
        pages.cell(pages.get_string_width(text), pages.leading, text)
    pages.set_y(pages.get_y() + pages.leading)
    pages.paragraph(STRIP_KEY)


def strip_drawing(pages: Pages, strip: Strip, x: float, middle: float, width: float) -> None:
    """Both classes, one above the other, and the lesion."""
    for lane, top in zip(strip.lanes, (middle - _LANE - 0.2, middle + 0.2), strict=True):
        _lane(pages, lane, x, top, width)
    mark = x + width * strip.mark / 100
    if strip.beyond:
        base = x + width * strip.arrow / 100
        pages.set_fill_color(*TEXT)
        pages.polygon([(mark, middle), (base, middle - 0.9), (base, middle + 0.9)], style="F")
    else:
        _upright(pages, mark, middle - _LANE - 0.5, middle + _LANE + 0.5, 0.45)


def _lane(pages: Pages, lane: Lane, x: float, top: float, width: float) -> None:
    colour, scale = CLASSES[lane.label], width / 100
    pages.set_draw_color(*colour)
    pages.line(x + scale * lane.whiskers[0], top + _LANE / 2, x + scale * lane.whiskers[1], top + _LANE / 2)
    _filled(pages, colour, x + scale * lane.box[0], top, scale * (lane.box[1] - lane.box[0]), _LANE)
    _upright(pages, x + scale * lane.median, top, top + _LANE, 0.3, PAGE)


def draw_calibration_curve(pages: Pages, report: Content, x: float, y: float, width: float) -> float:
    """Observed against predicted share of malignant lesions, and what it shows; returns where that ends."""
    if report.card is None or report.card.calibration_check is None:
        return y
    left = x + 9
    _calibration_frame(pages, left, y)
    mark = left + _CURVE * report.prediction.probability
    with pages.local_context():
        pages.set_dash_pattern(0.9, 0.7)
        _upright(pages, mark, y, y + _CURVE, 0.2)
    points = [
        (left + _CURVE * bin_.predicted, y + _CURVE * (1 - bin_.observed))
        for bin_ in report.card.calibration_check.curve
    ]
    pages.set_draw_color(*CLASSES["benign"])
    pages.set_fill_color(*CLASSES["benign"])
    pages.set_line_width(0.35)
    pages.polyline(points)
    pages.set_line_width(0.2)
    for place in points:
        pages.circle(*place, 0.7, style="F")
    pages.set_y(y)
    pages.font(SMALL, colour=QUIET)
    pages.paragraph(report.calibration, left + _CURVE + 4, width - _CURVE - 13)
    return max(pages.get_y(), y + _CURVE + 7)


def _calibration_frame(pages: Pages, left: float, y: float) -> None:
    pages.set_draw_color(*LINE)
    pages.rect(left, y, _CURVE, _CURVE)
    pages.set_draw_color(*QUIET)
    pages.line(left, y + _CURVE, left + _CURVE, y)
    pages.font(TINY, colour=QUIET)
    for share, anchor in ((0.0, "start"), (0.5, "middle"), (1.0, "end")):
        _label(pages, f"{share:.0%}", left + share * _CURVE, y + _CURVE + 0.6, anchor)
    _label(pages, "predicted", left + _CURVE / 2, y + _CURVE + 3.4, "middle")
    for text, place in (("100%", 0.0), ("0%", _CURVE - 3.2)):
        _label(pages, text, left - 1, y + place, "end")
    with pages.rotation(90, left - 4, y + _CURVE / 2):
        _label(pages, "malignant", left - 4, y + _CURVE / 2 - 3, "middle")


def _filled(pages: Pages, colour: Colour, x: float, y: float, width: float, height: float, style: str = "F") -> None:
    pages.set_fill_color(*colour)
    pages.rect(x, y, width, height, style=style)


def _upright(pages: Pages, x: float, top: float, bottom: float, thickness: float, colour: Colour = TEXT) -> None:
    pages.set_draw_color(*colour)
    pages.set_line_width(thickness)
    pages.line(x, top, x, bottom)
    pages.set_line_width(0.2)
