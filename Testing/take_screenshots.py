"""Pictures of a report for the documentation: as a desktop browser shows it, and as it prints.

    python Testing/take_screenshots.py FOLDER_OF_REPORT_HTML [OUTPUT_FOLDER]

writes ``report.png`` and ``report_print.png`` (all pages side by side). Needs Chromium and pdftoppm (poppler-utils).
"""

from __future__ import annotations

import os
import shutil
import subprocess
import sys
import tempfile
from pathlib import Path

from PIL import Image, ImageChops

SCREENSHOTS = Path(__file__).resolve().parents[1] / "Resources" / "Screenshots"
WIDTH, TALLEST = 1000, 4000
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


def main(report: Path, output: Path) -> None:
    output.mkdir(parents=True, exist_ok=True)
    with tempfile.TemporaryDirectory() as name:
        temporary = Path(name)
        browse(report, temporary, f"--window-size={WIDTH},{TALLEST}", f"--screenshot={temporary / 'page.png'}")
        browse(report, temporary, "--no-pdf-header-footer", f"--print-to-pdf={temporary / 'page.pdf'}")
        subprocess.run(["pdftoppm", "-r", "90", "-png", temporary / "page.pdf", temporary / "print"], check=True)
        save(without_blank_end(Image.open(temporary / "page.png")), output / "report.png")
        save(
            side_by_side([Image.open(path) for path in sorted(temporary.glob("print*.png"))]),
            output / "report_print.png",
        )


def browse(report: Path, profile: Path, *options: str) -> None:
    """Run Chromium once on the report, without network and with a profile of its own."""
    browser = shutil.which("chromium") or shutil.which("chromium-browser") or shutil.which("google-chrome")
    if browser is None:
        sys.exit("Chromium is missing: 'apt-get install chromium poppler-utils'.")
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
    picture.save(path, optimize=True)
    print(path)


if __name__ == "__main__":
    if len(sys.argv) not in (2, 3):
        sys.exit(__doc__)
    main(Path(sys.argv[1]) / "report.html", Path(sys.argv[2]) if len(sys.argv) == 3 else SCREENSHOTS)
