"""A4 pages for a report: text in columns, headings and tables, in the fonts that every PDF reader has.

Those fonts know Latin-1 only; `latin` writes everything else in it.
"""

from __future__ import annotations

import unicodedata
from collections.abc import Callable, Sequence
from typing import Any, Literal, cast

from fpdf import FPDF
from fpdf.enums import MethodReturnValue

from radllm_backend.models.prediction import RESEARCH_USE_ONLY

Colour = tuple[int, int, int]
TEXT, QUIET, LINE, PANEL, PAGE = (27, 36, 48), (86, 98, 115), (213, 219, 227), (244, 246, 249), (255, 255, 255)
"""Those of report.css in its light scheme, as all colours here."""
MARGIN, WIDTH = 15.0, 180.0
"""Of the text, in mm."""
BODY, SMALL, TINY = 8.8, 7.6, 7.0
"""Font sizes in points."""

_LEADING = 0.43
"""Height of a line in mm for each point of its font."""
_BOTTOM = 16.0
_LATIN = str.maketrans(
    {
        **dict.fromkeys("−–—‐‑‒\u00ad", "-"),
        **dict.fromkeys("‘’", "'"),
        **dict.fromkeys("“”", '"'),
        **{"…": "...", "≤": "<=", "≥": ">=", "→": "->", "←": "<-", "≈": "~", "μ": "µ", "€": "EUR", "\t": " "},
        **{"ł": "l", "Ł": "L", "đ": "d", "Đ": "D", "ı": "i", "œ": "oe", "Œ": "OE"},
    }
)


def latin(text: str) -> str:
    """Text in Latin-1: other letters without their accents, and what is no Latin letter by its code point.

    So nothing vanishes, and nothing turns into a question mark.
    """
    return "".join(map(_latin_character, text.translate(_LATIN)))


def _latin_character(character: str) -> str:
    if character == "\n" or _is_latin(character):
        return character
    plain = "".join(part for part in unicodedata.normalize("NFKD", character) if not unicodedata.combining(part))
    return plain if plain and all(map(_is_latin, plain)) else f"[U+{ord(character):04X}]"


def _is_latin(character: str) -> bool:
    return character == "\u00a0" or (character.isprintable() and ord(character) < 256)


class Pages(FPDF):
    """The pages, filled from top to bottom."""

    def __init__(self) -> None:
        super().__init__(format="A4")
        self.set_margins(MARGIN, 12)
        self.set_auto_page_break(True, _BOTTOM)
        self.c_margin = 0  # text begins where its column does
        self.set_draw_color(*LINE)
        self.set_line_width(0.2)

    def footer(self) -> None:
        """On each page, whoever finds it alone."""
        self.set_y(-11)
        self.font(SMALL, colour=QUIET)
        self.cell(WIDTH, 4, latin(f"RadiomicsLLM report. {RESEARCH_USE_ONLY}"))
        self.set_x(MARGIN)
        self.cell(WIDTH, 4, f"{self.page_no()} / {{nb}}", align="R")

    def font(self, size: float, style: Literal["", "B"] = "", colour: Colour = TEXT, family: str = "helvetica") -> None:
        self.set_font(family, style, size)
        self.set_text_color(*colour)

    def paragraph(self, text: str, x: float = MARGIN, width: float = WIDTH, gap: float = 1.0) -> None:
        """Lines from the present height on in the present font; the next paragraph starts below."""
        self.set_x(x)
        self.multi_cell(width, self.leading, latin(text), align="L", new_x="LEFT", new_y="NEXT")
        self.set_y(self.get_y() + gap)

    @property
    def leading(self) -> float:
        """Height of a line in the present font."""
        return float(self.font_size_pt) * _LEADING

    def heading(self, text: str, x: float = MARGIN, width: float = WIDTH) -> None:
        """Of a part, also in the reader's outline."""
        self.set_y(self.get_y() + 2)
        self.font(10.5, "B")
        self.start_section(text)
        self.paragraph(text, x, width, gap=0.5)
        self.font(BODY)

    def points(self, texts: Sequence[str], x: float = MARGIN, width: float = WIDTH) -> None:
        """A list."""
        for text in texts:
            self.set_fill_color(*TEXT)
            self.circle(x + 1, self.get_y() + self.leading / 2, 0.4, style="F")
            self.paragraph(text, x + 3, width - 3, gap=0.4)

    def lines_of(self, text: str, width: float) -> int:
        """How many lines a text takes in the present font."""
        lines: Any = self.multi_cell(
            width, self.leading, latin(text), align="L", dry_run=True, output=MethodReturnValue.LINES
        )
        return len(lines)

    def rule(self, x: float = MARGIN, width: float = WIDTH) -> None:
        """A thin line at the present height."""
        self.set_draw_color(*LINE)
        self.line(x, self.get_y(), x + width, self.get_y())

    def rows(self, rows: Sequence[Sequence[str]], widths: Sequence[float], x: float = MARGIN, right: int = 0) -> None:
        """A table: rows with lines between them, the first in bold as a heading.

        Args:
            right: how many columns from the right on are aligned to the right.
        """
        for number, row in enumerate(rows):
            self.font(SMALL, "B" if number == 0 else "", QUIET if number == 0 else TEXT)
            self.row(row, widths, x, right)

    def row(self, cells: Sequence[str], widths: Sequence[float], x: float = MARGIN, right: int = 0) -> None:
        """Cells side by side in the present font, each as many lines as it takes, and a line below."""
        top, edge, bottom = self.get_y() + 0.4, x, self.get_y()
        for place, (cell, width) in enumerate(zip(cells, widths, strict=True)):
            self.set_xy(edge, top)
            align = "R" if place >= len(cells) - right else "L"
            self.multi_cell(width - (0 if align == "R" else 1.5), self.leading, latin(cell), align=align, new_y="NEXT")
            bottom, edge = max(bottom, self.get_y()), edge + width
        self.set_y(bottom + 0.4)
        self.rule(x, sum(widths))

    def whole(self, draw: Callable[[Pages], None]) -> None:
        """Draw something that stays on one page: on the next where it does not fit on this one."""
        if self.height_of(draw) is None:
            self.add_page()
        draw(self)

    def height_of(self, draw: Callable[[Pages], None]) -> float | None:
        """How high something would be, drawn from here on; None where it does not fit on this page."""
        top = self.get_y()
        with self.offset_rendering() as trial:
            draw(cast(Pages, trial))  # it passes everything on to these pages, and takes it back
            height = float(trial.get_y()) - top
        return None if trial.page_break_triggered else height

    def side_by_side(self, parts: Sequence[Column]) -> None:
        """Columns, left to right, together on one page."""
        gap = 8.0
        room = WIDTH - gap * (len(parts) - 1)

        def draw(pages: Pages) -> None:
            top, x, bottom = pages.get_y(), MARGIN, pages.get_y()
            for part, share in parts:
                pages.set_y(top)
                part(pages, x, room * share)
                bottom, x = max(bottom, pages.get_y()), x + room * share + gap
            pages.set_y(bottom)

        if parts:
            self.whole(draw)


Draw = Callable[[Pages, float, float], None]
"""Draws something below the present height, from a left edge on and so wide."""
Column = tuple[Draw, float]
"""A part and its share of the width."""
