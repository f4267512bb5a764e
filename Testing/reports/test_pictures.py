"""The page as a browser shows it: nothing is cut off, and no large part of it is empty."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest

pytest.importorskip("pypdfium2", reason="the pictures' script needs pypdfium2")

from PIL import Image

from radllm_backend.models.prediction import Prediction
from radllm_backend.reports.html import report_html
from Testing.support.report_cases import CARD, FULL, box_lesion, report_of
from Testing.support.take_screenshots import browse, find_browser, without_blank_end

pytestmark = pytest.mark.skipif(find_browser() is None, reason="needs Chromium: apt-get install chromium")


def written(folder: Path, prediction: Prediction) -> Path:
    path = folder / "report.html"
    path.write_text(report_html(report_of(prediction, box_lesion(), CARD)), encoding="utf-8")
    return path


@pytest.mark.parametrize("width", [500, 1000])
def test_it_is_shown_within_its_window(tmp_path: Path, width: int) -> None:
    picture = tmp_path / "page.png"
    browse(written(tmp_path, FULL), tmp_path, f"--window-size={width},9000", f"--screenshot={picture}")
    page = np.asarray(without_blank_end(Image.open(picture)).convert("L"), dtype=float)
    assert 800 < len(page) < 9000
    # Nothing reaches the right edge, where it would be cut off, and no large part of the page is empty.
    assert np.ptp(page[:, -4:]) < 8
    marked = np.ptp(page, axis=1) > 40
    longest = max(map(len, "".join("x" if row else " " for row in marked).replace("x", "\n").split("\n")))
    assert longest < 200
