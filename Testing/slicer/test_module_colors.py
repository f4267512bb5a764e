"""Segments in the colour of their call, and in their own again."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import numpy as np

from Testing.slicer.module_scene import (
    MASKS,
    ROOT,
    add_segmentation,
    add_volume,
    classify,
    click,
    python,
    rows,
    shown,
    slicer,
    tables,
)

from RadiomicsLLMLib.results.Pictures import CALL_COLORS
from RadiomicsLLMLib.results.SegmentColors import SEGMENT_COLORS


def colors(segmentation: Any) -> list[tuple[float, ...]]:
    return [segmentation.GetSegmentation().GetSegment(key).GetColor() for key in MASKS]


def expected() -> list[tuple[float, ...]]:
    codes = [SEGMENT_COLORS[row["call"]] for row in rows(tables()[0])]
    return [tuple(int(code[index : index + 2], 16) / 255 for index in (1, 3, 5)) for code in codes]


def test_segments_have_the_colour_of_their_call_and_their_own_again(one: Any) -> None:
    segmentation = add_segmentation(add_volume())
    own = colors(segmentation)
    assert not one.ui.colorBox.enabled
    classify(one)
    click(one.ui.colorBox)
    np.testing.assert_allclose(colors(segmentation), expected(), atol=1e-4)
    assert len(shown(one)) == 2  # a colour is no other lesion
    classify(one)  # again: their own colours are not forgotten
    np.testing.assert_allclose(colors(segmentation), expected(), atol=1e-4)
    click(one.ui.colorBox)
    assert colors(segmentation) == own
    assert not any(segmentation.GetSegmentation().GetSegment(key).HasTag("RadiomicsLLM.ownColor") for key in MASKS)


def test_own_colours_come_back_after_the_scene_was_saved_and_loaded(one: Any, tmp_path: Path) -> None:
    segmentation = add_segmentation(add_volume())
    own = colors(segmentation)
    classify(one)
    click(one.ui.colorBox)
    bundle = tmp_path / "scene.mrb"
    assert slicer.mrmlScene.WriteToMRB(str(bundle))
    code = """
        import json, sys
        from Testing.slicer.module_scene import RadiomicsLLM, click, open_module, slicer, slot_errors
        from Testing.slicer.test_module_colors import colors
        panel = open_module(RadiomicsLLM)
        assert slicer.mrmlScene.ReadFromMRB(sys.argv[1])
        segmentation = slicer.util.getNodesByClass("vtkMRMLSegmentationNode")[0]
        before = panel.ui.colorBox.checked
        click(panel.ui.colorBox)
        print(json.dumps([before, colors(segmentation), len(slot_errors)]))
    """
    before, found, errors = json.loads(python(code, str(bundle)).splitlines()[-1])
    assert (before, errors) == (True, 0)
    np.testing.assert_allclose(found, own, atol=1e-5)


def test_the_colours_are_the_report_s_and_colour_blind_people_tell_them_apart() -> None:
    style = (ROOT / "radllm_backend" / "reports" / "templates" / "report.css").read_text(encoding="utf-8")
    for call, color in CALL_COLORS.items():
        assert f"--{call.removeprefix('likely ')}: {color};" in style
    # Machado, Oliveira and Fernandes 2009, severity 1: how the colours look to protanopes, deuteranopes, tritanopes.
    simulations = (
        np.eye(3),
        np.array([[0.152, 1.053, -0.205], [0.115, 0.786, 0.099], [-0.004, -0.048, 1.052]]),
        np.array([[0.367, 0.861, -0.228], [0.280, 0.673, 0.047], [-0.012, 0.043, 0.969]]),
        np.array([[1.256, -0.077, -0.179], [-0.078, 0.931, 0.148], [0.005, 0.691, 0.304]]),
    )
    for simulation in simulations:
        seen = [lab(simulation @ linear(code)) for code in SEGMENT_COLORS.values()]
        distances = [np.linalg.norm(a - b) for index, a in enumerate(seen) for b in seen[:index]]
        assert min(distances) > 30  # of CIE 1976; about 2 is just noticeable


def linear(code: str) -> np.ndarray:
    values = np.array([int(code[index : index + 2], 16) for index in (1, 3, 5)]) / 255
    return np.where(values <= 0.04045, values / 12.92, ((values + 0.055) / 1.055) ** 2.4)


def lab(rgb: np.ndarray) -> np.ndarray:
    """CIE L*a*b* of linear sRGB."""
    to_xyz = np.array([[0.4125, 0.3576, 0.1804], [0.2127, 0.7152, 0.0722], [0.0193, 0.1192, 0.9503]])
    x, y, z = np.cbrt(to_xyz @ np.clip(rgb, 0, 1) / (0.9505, 1, 1.0888))
    return np.array([116 * y - 16, 500 * (x - y), 200 * (y - z)])
