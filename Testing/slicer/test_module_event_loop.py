"""Slicer's windows go on while a lesion is classified.

The best of three runs counts: on a busy machine the system itself pauses a process for as long.
"""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import pytest

from Testing.slicer.module_scene import (
    add_segmentation,
    add_volume,
    choose_backend,
    choose_modality,
    choose_own_model,
    classify,
    longest_pause,
    prepare,
    probabilities,
    python,
    slicer,
)
from Testing.support.nodules import ball

pytestmark = pytest.mark.alone
LONGEST = 0.1
"""Seconds."""
ONCE = 0.15
"""Seconds, once in a process: no thread goes on while the library ``tokenizers`` reads a tokenizer, for 0.06 to 0.12
seconds. Reading it in parts of our own halved that, and knew the inside of somebody else's file."""


def test_the_event_loop_is_never_blocked(panel: Any, self_contained_model: Path) -> None:
    choose_backend(panel, "local")
    choose_own_model(panel, self_contained_model)
    choose_modality(panel, "US")
    add_segmentation(add_volume())
    classify(panel)  # the packages are imported, and the server is started
    pauses = [longest_pause(panel) for _ in range(3)]
    assert min(pauses) < LONGEST, pauses


CT, NODULES = (300, 512, 512), 10
_OWN_SETTINGS = """
imageType: {Original: {}, Square: {}}
featureClass: {shape: [], firstorder: [], glcm: [], glrlm: [], glszm: [], gldm: [], ngtdm: []}
setting: {binWidth: 25, normalize: true, normalizeScale: 100}
"""
"""As the preset for CT, with two things that need the whole image, and without resampling it for each nodule."""


def add_ct() -> None:
    """A CT of 157 MB with ten nodules in one labelmap, one of them at the border."""
    voxels = np.random.default_rng(0).integers(-1000, 1500, CT, dtype=np.int16)
    axes = np.diag([-0.7, -0.7, 1, 1])
    slicer.util.addVolumeFromArray(voxels, axes, "ct")
    labels, nodule = np.zeros(CT, np.uint8), ball((31, 31, 31), (15, 15, 15), 15)
    for number in range(NODULES):
        start = 25 * number, 40 * number, 50 * number
        labels[tuple(slice(first, first + 31) for first in start)][nodule] = number + 1
    labelmap = slicer.util.addVolumeFromArray(labels, axes, nodeClassName="vtkMRMLLabelMapVolumeNode")
    segmentation = slicer.mrmlScene.AddNewNodeByClass("vtkMRMLSegmentationNode", "nodules")
    segmentation.CreateDefaultDisplayNodes()
    assert slicer.modules.segmentations.logic().ImportLabelmapToSegmentationNode(labelmap, segmentation)
    slicer.mrmlScene.RemoveNode(labelmap)


def test_a_ct_with_ten_nodules_does_not_block_it(panel: Any, volume_model: Path, tmp_path: Path) -> None:
    (tmp_path / "own.yaml").write_text(_OWN_SETTINGS, encoding="utf-8")
    prepare(panel, volume_model, "CT")
    panel.ui.settingsSelector.currentIndex = panel.ui.settingsSelector.findData("own")
    panel.ui.settingsFileEdit.currentPath = str(tmp_path / "own.yaml")
    add_ct()
    pauses: list[float] = []
    while len(pauses) < 3 and min(pauses, default=LONGEST) >= LONGEST:
        pauses.append(longest_pause(panel))
        assert len(probabilities()) == NODULES
    assert min(pauses) < LONGEST, pauses


def test_the_sample_is_drawn_beside_it() -> None:
    """Also the first time, when what draws it is imported."""
    code = """
        from Testing.slicer.module_scene import RadiomicsLLM, finish, longest_pause, open_module, slicer
        panel = open_module(RadiomicsLLM)
        def load(panel):
            panel.ui.sampleButton.click()
            finish(panel)
        print(longest_pause(panel, load))
    """
    pauses = [float(python(code).splitlines()[-1]) for _ in range(3)]
    assert min(pauses) < LONGEST, pauses


def test_not_even_while_slicer_s_python_loads_the_language_model(smollm2: object) -> None:
    code = """
        from Testing.slicer.module_scene import RadiomicsLLM, add_segmentation, add_volume
        from Testing.slicer.module_scene import choose_backend, choose_modality
        from Testing.slicer.module_scene import longest_pause, open_module, probabilities
        panel = open_module(RadiomicsLLM)
        choose_backend(panel, "process")
        choose_modality(panel, "US")
        add_segmentation(add_volume())
        pause = longest_pause(panel)
        assert len(probabilities()) == 2
        print(pause)
    """
    pauses: list[float] = []
    while len(pauses) < 5 and min(pauses, default=ONCE) >= ONCE:
        pauses.append(float(python(code).splitlines()[-1]))
    assert min(pauses) < ONCE, pauses
