"""The report of a prediction as a PDF: what the page says, on at most two sheets of A4 for a usual lesion."""

from __future__ import annotations

import io
from datetime import UTC
from functools import partial
from typing import TYPE_CHECKING

from fpdf.enums import XPos, YPos

from radllm_backend.models.prediction import RESEARCH_USE_ONLY, FeatureShare, percent
from radllm_backend.reports.content import Content, signed, significant
from radllm_backend.reports.pdf_drawings import (
    CALLS,
    draw_calibration_curve,
    effect_bar,
    probability_drawing,
    strip_drawing,
    strip_key,
)
from radllm_backend.reports.pdf_page import (
    BODY,
    LINE,
    MARGIN,
    PANEL,
    QUIET,
    SMALL,
    TEXT,
    TINY,
    WIDTH,
    Column,
    Draw,
    Pages,
    latin,
)

if TYPE_CHECKING:
    from radllm_backend.records import KeyImage
    from radllm_backend.reports.geometry import FeatureRow

_PICTURE = 52.0
"""Side of the key image in mm."""
_NAME, _EFFECT, _SIGNED, _VALUE, _STANDARDISED, _PERCENTILE, _STRIP = 44.0, 40.0, 13.0, 16.0, 21.0, 15.0, 31.0
"""Widths of the columns of the features."""
_SOURCE, _HASH, _HASH_LINE = (32.0, 60.0), 88.0, 3.3
"""Of the provenance: part and text, then the hash, in mm."""
_CAUTION, _CAUTION_PANEL = (138, 90, 0), (253, 246, 227)


def report_pdf(report: Content) -> bytes:
    """The report as a file's content; the same bytes for the same report."""
    pages = Pages()
    pages.set_title("RadiomicsLLM report")
    pages.set_lang("en-GB")
    pages.set_subject(RESEARCH_USE_ONLY)
    pages.set_creator("RadiomicsLLM")
    pages.set_creation_date(report.made.astimezone(UTC))
    pages.add_page()
    _title(pages)
    _result(pages, report)
    _cautions(pages, report)
    _features(pages, report)
    pages.side_by_side(_words_columns(report))
    pages.side_by_side(_training_columns(report))
    pages.whole(partial(_prompt, report=report))
    pages.whole(partial(_provenance, report=report))
    return bytes(pages.output())


def _title(pages: Pages) -> None:
    pages.font(15, "B")
    pages.cell(WIDTH / 2, 7, "RadiomicsLLM report")
    pages.font(BODY, "B")
    pages.cell(WIDTH / 2, 7, latin(RESEARCH_USE_ONLY), align="R", new_x=XPos.LMARGIN, new_y=YPos.NEXT)
    pages.set_draw_color(*TEXT)
    pages.line(MARGIN, pages.get_y(), MARGIN + WIDTH, pages.get_y())
    pages.set_y(pages.get_y() + 3)


def _result(pages: Pages, report: Content) -> None:
    prediction, top, x, below = report.prediction, pages.get_y(), MARGIN, 0.0
    if report.picture:
        below = _picture(pages, report.picture, top) + 1
        x = MARGIN + _PICTURE + 6
        pages.set_y(top)
    width, colour = MARGIN + WIDTH - x, CALLS[prediction.call]
    pages.font(SMALL, "B", QUIET)
    pages.start_section("Result")
    pages.paragraph("Result", x, width, gap=0)
    pages.font(18, "B", colour)
    pages.paragraph(prediction.call.capitalize(), x, width, gap=0)
    pages.set_x(x)
    pages.font(13, "B", colour)
    probability = percent(prediction.probability)
    pages.cell(pages.get_string_width(probability) + 1.5, 6, probability)
    pages.font(BODY)
    reach = prediction.stability
    outlines = f" ({percent(reach.low)} to {percent(reach.high)} with other outlines)" if reach else ""
    pages.cell(text=f"probability of malignancy{outlines}", h=6, new_x=XPos.LMARGIN, new_y=YPos.NEXT)
    pages.set_y(probability_drawing(pages, prediction, x, pages.get_y(), min(width, 110)) + 1)
    pages.font(BODY)
    for sentence in filter(None, (prediction.rule(), report.stability, report.accuracy)):
        pages.paragraph(sentence, x, width)
    pages.set_y(max(pages.get_y(), below))


def _picture(pages: Pages, picture: KeyImage, top: float) -> float:
    """The key image with its caption; returns where that ends."""
    words = "The lesion, outlined, and the image around it"
    shown = pages.image(
        io.BytesIO(picture.png), MARGIN, top, _PICTURE, _PICTURE, keep_aspect_ratio=True, alt_text=words
    )
    # Where the picture is wider than high it stands in the middle of its square.
    pages.set_y(top + (_PICTURE + shown.rendered_height) / 2 + 1)
    pages.font(SMALL, colour=QUIET)
    where = ", on the slice where it is largest" if picture.is_slice else ""
    pages.paragraph(f"Yellow: outline of the lesion{where}", width=_PICTURE)
    return pages.get_y()


def _cautions(pages: Pages, report: Content) -> None:
    def draw(pages: Pages) -> None:
        pages.heading("Cautions", x, width)
        pages.points([caution.text for caution in report.prediction.cautions], x, width)
        if not report.prediction.cautions:
            pages.paragraph("No cautions.", x, width)
        if report.rules:
            pages.font(SMALL)
            pages.paragraph(f"Rules: {'; '.join(report.rules)}.", x, width)

    x, width, top = MARGIN + 4, WIDTH - 7, pages.get_y() + 1
    pages.set_y(top)
    height = pages.height_of(draw)
    if report.prediction.cautions and height is not None:
        pages.set_fill_color(*_CAUTION_PANEL)
        pages.rect(MARGIN, top, WIDTH, height + 1, style="F")
        pages.set_fill_color(*_CAUTION)
        pages.rect(MARGIN, top, 1.2, height + 1, style="F")
    pages.set_y(top)
    draw(pages)
    pages.set_y(pages.get_y() + 1)


def _features(pages: Pages, report: Content) -> None:
    pages.heading("What moved this prediction")
    pages.font(SMALL)
    pages.paragraph(report.effects)
    if report.has_strips:
        strip_key(pages)
    _features_heading(pages, report)
    for row in report.rows:
        pages.whole(partial(_feature, row=row, report=report))
    pages.font(SMALL)
    if report.left_out:
        pages.paragraph(report.left_out)


def _features_heading(pages: Pages, report: Content) -> None:
    pages.font(SMALL, "B", QUIET)
    pages.cell(_NAME, 4, "Feature")
    if report.explained:
        left = pages.get_x()
        for title, align in (("benign", "L"), ("Effect", "C"), ("malignant", "R")):
            pages.set_x(left)
            pages.cell(_EFFECT, 4, title, align=align)
    pages.set_x(MARGIN + _NAME + _EFFECT + _SIGNED)
    for title, width in (("Value", _VALUE), ("Standardised", _STANDARDISED), ("Percentile", _PERCENTILE)):
        pages.cell(width, 4, title, align="R")
    strips = "Training lesions" if report.has_strips else ""
    pages.cell(_STRIP, 4, strips, align="R", new_x=XPos.LMARGIN, new_y=YPos.NEXT)
    pages.rule()


def _feature(pages: Pages, row: FeatureRow, report: Content) -> None:
    """A row of the table."""
    pages.font(SMALL, "B")
    top, name = pages.get_y(), row.share.name
    height = max(5.6, pages.lines_of(name, _NAME - 2) * pages.leading + 1)
    line, middle = pages.leading, top + height / 2
    pages.set_xy(MARGIN, middle - pages.lines_of(name, _NAME - 2) * line / 2)
    pages.multi_cell(_NAME - 2, line, latin(name), align="L")
    pages.font(SMALL)
    x = MARGIN + _NAME
    if report.explained:
        effect_bar(pages, row, x, middle, _EFFECT)
        effect = "not computed" if row.share.effect is None else signed(row.share.effect)
        _number(pages, effect, x + _EFFECT, middle, _SIGNED)
    x += _EFFECT + _SIGNED
    for text, width in zip(_cells(row), (_VALUE, _STANDARDISED, _PERCENTILE), strict=False):
        _number(pages, text, x, middle, width)
        x += width
    if not row.is_number:
        pages.set_xy(x + 6, middle - line / 2)
        pages.cell(MARGIN + WIDTH - x - 6, line, latin(str(row.share.value)))
    if row.strip:
        strip_drawing(pages, row.strip, x + 5, middle, _STRIP - 5)
    pages.set_y(top + height)
    pages.rule()


def _cells(row: FeatureRow) -> list[str]:
    """The numbers of a measured feature; none of a finding."""
    share = row.share
    if not isinstance(share, FeatureShare):
        return []
    return [significant(share.value), signed(share.standardised), f"{share.training_percentile:.0f}"]


def _number(pages: Pages, text: str, x: float, middle: float, width: float) -> None:
    pages.set_xy(x, middle - pages.leading / 2)
    pages.cell(width, pages.leading, latin(text), align="R")


def _words_columns(report: Content) -> list[Column]:
    parts = [("In words", report.findings), ("What would change the call", report.alternatives)]
    shown = [(title, texts) for title, texts in parts if texts]
    return [(partial(_list, title, texts), 1 / len(shown)) for title, texts in shown]


def _list(title: str, texts: list[str], pages: Pages, x: float, width: float) -> None:
    pages.heading(title, x, width)
    pages.points(texts, x, width)


def _training_columns(report: Content) -> list[Column]:
    shown: list[Draw] = []
    if report.typicality or report.prediction.neighbours:
        shown.append(partial(_neighbours, report))
    if report.card:
        shown.append(partial(_model, report))
    return [(draw, 1 / len(shown)) for draw in shown]


def _neighbours(report: Content, pages: Pages, x: float, width: float) -> None:
    pages.heading("Nearest training lesions", x, width)
    if report.typicality:
        pages.paragraph(report.typicality, x, width)
    neighbours = report.prediction.neighbours
    if neighbours:
        pages.font(SMALL, colour=QUIET)
        pages.paragraph(report.distances, x, width)
        lines = [[str(one.lesion), one.label, f"{one.distance:.2f}"] for one in neighbours]
        pages.rows([["Training lesion", "Truth", "Distance"], *lines], [width * 0.4, width * 0.3, width * 0.3], x, 1)


def _model(report: Content, pages: Pages, x: float, width: float) -> None:
    pages.heading("How well the model does", x, width)
    pages.paragraph(report.population, x, width)
    if report.performance:
        rows = [["Model", "AUC (95% interval)"], *map(list, report.performance)]
        pages.rows(rows, [width * 0.6, width * 0.4], x, 1)
    if report.calibration:
        pages.set_y(draw_calibration_curve(pages, report, x, pages.get_y() + 2, width))


def _prompt(pages: Pages, report: Content) -> None:
    pages.heading("What the model read")
    pages.font(TINY, family="courier")
    pages.set_fill_color(*PANEL)
    pages.set_draw_color(*LINE)
    pages.c_margin = 2  # inside the frame
    pages.set_x(MARGIN)
    pages.multi_cell(
        WIDTH,
        pages.leading,
        latin(report.prediction.prompt),
        border=1,
        align="L",
        fill=True,
        padding=(1, 0),
        new_y="NEXT",
    )
    pages.c_margin = 0
    pages.set_y(pages.get_y() + 1)


def _provenance(pages: Pages, report: Content) -> None:
    pages.heading("Provenance")
    if not report.card:
        pages.font(SMALL)
        pages.paragraph(f"Model {report.prediction.model.name}, trained on {report.prediction.model.trained_on}")
    for source in report.provenance:
        pages.font(SMALL)
        top = pages.get_y()
        if source.sha256:
            pages.row([source.part, source.text, ""], [*_SOURCE, _HASH])
            bottom = pages.get_y()
            pages.set_xy(MARGIN + sum(_SOURCE), top + 0.4)
            pages.font(6.4, colour=QUIET, family="courier")
            pages.cell(_HASH, _HASH_LINE, source.sha256)
            pages.set_y(bottom)
        else:
            pages.row([source.part, source.text], [_SOURCE[0], WIDTH - _SOURCE[0]])
