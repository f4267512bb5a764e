"""The pictures of the documentation show what their names say."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import pytest
from PIL import Image, ImageColor

from Testing.slicer.harness import slot_errors
from Testing.slicer.harness.panel_screenshots import NAMES, take_dark, take_screenshots
from Testing.slicer.harness.window_pictures import PANEL_WIDTH, WIDTH
from Testing.slicer.module_scene import ROOT

from RadiomicsLLMLib.results.Pictures import CALL_COLORS
from RadiomicsLLMLib.results.SegmentColors import SEGMENT_COLORS

LARGEST = 250_000  # bytes of a file


def near(pixels: np.ndarray, colour: str, most: int = 12) -> int:
    """How many pixels nearly have a colour: a picture of few colours has each of them about."""
    return int((np.abs(pixels.astype(int) - ImageColor.getrgb(colour)).max(axis=-1) <= most).sum())


def hues(pixels: np.ndarray) -> int:
    """How many pixels are coloured and not grey."""
    return int((np.ptp(pixels.astype(int), axis=-1) > 40).sum())


@pytest.mark.long
def test_the_screenshots_show_what_their_names_say(
    panel: Any, words_model: Path, self_contained_model: Path, tmp_path: Path
) -> None:
    pytest.importorskip("highdicom", reason="the batch's DICOM database is written with highdicom")
    paths = take_screenshots(self_contained_model, words_model, tmp_path)
    taken = {path.stem: np.asarray(Image.open(path).convert("RGB")) for path in paths}
    assert all(path.stat().st_size < LARGEST for path in paths)
    assert all(picture.shape[1] == WIDTH for picture in taken.values())
    views = {name: picture[20:, PANEL_WIDTH:] for name, picture in taken.items()}
    panels = {name: picture[:, :PANEL_WIDTH] for name, picture in taken.items()}
    calls = {name: sum(near(pixels, colour) for colour in CALL_COLORS.values()) for name, pixels in panels.items()}
    assert min(calls["panel"], calls["panel-colours"]) > 500
    assert calls["panel-empty"] == calls["panel-sample"] == 0
    assert hues(views["panel-sample"]) > 5000  # the lesions, in colours
    assert views["panel-sample"].std() > 20  # the ultrasound picture
    assert not (views["panel-empty"][:200, : WIDTH // 4] > 20).any()  # nothing is in the red view
    own, coloured = (
        [near(views[name], colour, 100) for colour in SEGMENT_COLORS.values()] for name in ("panel", "panel-colours")
    )
    assert max(coloured) > 3000
    assert own != coloured
    assert np.mean(taken["panel-question"]) < np.mean(taken["panel-sample"])
    shipped = ROOT / "Resources" / "Screenshots"
    assert {path.name for path in shipped.glob("panel*.png")} == {f"{name}.png" for name in NAMES}
    assert all(path.stat().st_size < LARGEST for path in shipped.glob("panel*.png"))
    take_dark(self_contained_model, tmp_path / "dark.png")
    dark = np.asarray(Image.open(tmp_path / "dark.png").convert("L"))[:, :PANEL_WIDTH]
    assert np.mean(panels["panel"]) > 180 > 100 > np.mean(dark)
    assert slot_errors == []
