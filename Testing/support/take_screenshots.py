"""Pictures of a report for the documentation: as a desktop browser shows it, and its PDF.

    python -m Testing.support.take_screenshots FOLDER_OF_REPORTS [OUTPUT_FOLDER]

writes ``report.png`` and ``report-pdf.png`` (all pages side by side). Needs Chromium and pypdfium2.
"""

from __future__ import annotations

import os
import shutil
import subprocess
import sys
import tempfile
from pathlib import Path

import pypdfium2
from PIL import Image, ImageChops

SCREENSHOTS = Path(__file__).resolve().parents[2] / "Resources" / "Screenshots"
WIDTH, TALLEST = 1000, 4000
PDF_SCALE = 1.3
"""Pixels a point."""
QUIET = (
    "--headless",
    "--disable-gpu",
    "--disable-quic",
    "--no-first-run",
    "--disable-background-networking",
    "--disable-component-update",
    "--disable-sync",
    "--hide-scrollbars",
)


def main(reports: Path, output: Path) -> None:
    output.mkdir(parents=True, exist_ok=True)
    with tempfile.TemporaryDirectory() as name:
        picture = Path(name) / "page.png"
        browse(reports / "report.html", Path(name), f"--window-size={WIDTH},{TALLEST}", f"--screenshot={picture}")
        save(without_blank_end(Image.open(picture)), output / "report.png")
    pages = [page.render(scale=PDF_SCALE).to_pil() for page in pypdfium2.PdfDocument(reports / "report.pdf")]
    save(side_by_side(pages), output / "report-pdf.png")


def find_browser() -> str | None:
    return shutil.which("chromium") or shutil.which("chromium-browser") or shutil.which("google-chrome")


def browse(report: Path, profile: Path, *options: str) -> None:
    """Run Chromium once on the report, without network and with a profile of its own."""
    browser = find_browser()
    if browser is None:
        sys.exit("Chromium is missing: 'apt-get install chromium'.")
    sandbox = ["--no-sandbox"] if hasattr(os, "geteuid") and os.geteuid() == 0 else []  # root cannot have one
    subprocess.run(
        [browser, *QUIET, *sandbox, f"--user-data-dir={profile / 'profile'}", *options, report.resolve().as_uri()],
        check=True,
        stderr=subprocess.DEVNULL,
    )


def without_blank_end(page: Image.Image) -> Image.Image:
    """The page down to a little below its last mark."""
    page = page.convert("RGB")
    blank = Image.new("RGB", page.size, page.getpixel((0, page.height - 1)))
    marked = ImageChops.difference(page, blank).getbbox() or (0, 0, *page.size)
    return page.crop((0, 0, page.width, min(page.height, marked[3] + 24)))


def side_by_side(pages: list[Image.Image]) -> Image.Image:
    gap = 16
    width = sum(page.width for page in pages) + gap * (len(pages) - 1)
    sheet = Image.new("RGB", (width, pages[0].height), "#8a929c")
    for number, page in enumerate(pages):
        sheet.paste(page, (number * (page.width + gap), 0))
    return sheet


def save(picture: Image.Image, path: Path) -> None:
    # 256 colours are plenty for text and grey tissue, and a third of the size.
    picture.convert("RGB").quantize(256, Image.Quantize.MAXCOVERAGE, dither=Image.Dither.NONE).save(path, optimize=True)
    print(path)


if __name__ == "__main__":
    if len(sys.argv) not in (2, 3):
        sys.exit(__doc__)
    main(Path(sys.argv[1]), Path(sys.argv[2]) if len(sys.argv) == 3 else SCREENSHOTS)
