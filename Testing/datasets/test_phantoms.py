"""The synthetic lesions: reproducible, of two clearly different kinds, and labelled as what they are."""

from __future__ import annotations

import subprocess
import sys
from functools import cache
from pathlib import Path

import numpy as np
import pytest
import SimpleITK as sitk
from hypothesis import given, settings
from hypothesis import strategies as st
from PIL import Image
from scipy import ndimage

from radllm_backend.datasets.phantoms import KINDS, Kind, make_phantom, write_phantoms
from radllm_backend.errors import RadllmError

SAMPLES = Path(__file__).resolve().parents[2] / "Resources" / "SampleLesions"
SEEDS = range(25)

phantom_of = cache(make_phantom)


def shape(mask: np.ndarray) -> sitk.LabelShapeStatisticsImageFilter:
    statistics = sitk.LabelShapeStatisticsImageFilter()
    statistics.Execute(sitk.GetImageFromArray((mask > 0).astype(np.uint8)))
    return statistics


def sphericity(mask: np.ndarray) -> float:
    """Circumference of the disk of the same area over the lesion's perimeter."""
    measured = shape(mask)
    return 2 * np.sqrt(np.pi * measured.GetNumberOfPixels(1)) / measured.GetPerimeter(1)


@pytest.mark.parametrize("kind", KINDS)
def test_committed_samples_are_what_the_code_makes(kind: Kind) -> None:
    phantom = make_phantom(kind)
    np.testing.assert_array_equal(np.asarray(Image.open(SAMPLES / f"{kind}.png")), phantom.image)
    np.testing.assert_array_equal(np.asarray(Image.open(SAMPLES / f"{kind}_mask.png")), phantom.mask)


def test_the_command_writes_labelled_small_files_and_nothing_else(tmp_path: Path) -> None:
    folder = tmp_path / "new" / "samples"
    command = [sys.executable, "-m", "radllm_backend.datasets.phantoms", str(folder)]
    subprocess.run(command, check=True, cwd=SAMPLES.parents[1])
    names = {"README.md", *(f"{kind}{part}.png" for kind in KINDS for part in ("", "_mask"))}
    assert {path.name for path in folder.iterdir()} == names
    for path in folder.iterdir():
        assert path.stat().st_size < 200_000
    for picture in folder.glob("*.png"):
        assert "SYNTHETIC" in Image.open(picture).info["Description"]
    readme = (folder / "README.md").read_text(encoding="utf-8")
    assert readme == (SAMPLES / "README.md").read_text(encoding="utf-8")
    assert "SYNTHETIC" in readme
    assert "no\npatient" in readme
    assert "python -m radllm_backend.datasets.phantoms" in readme


def test_seeds_give_different_lesions_and_the_same_seed_the_same() -> None:
    first, again, other = make_phantom("oval", 7), make_phantom("oval", 7), make_phantom("oval", 8)
    assert first.image.tobytes() == again.image.tobytes()
    assert first.mask.tobytes() == again.mask.tobytes()
    assert (first.mask != other.mask).sum() > 500


def test_every_oval_is_rounder_than_every_spiculated_lesion() -> None:
    ovals = [sphericity(phantom_of("oval", seed).mask) for seed in SEEDS]
    spiculated = [sphericity(phantom_of("spiculated", seed).mask) for seed in SEEDS]
    assert min(ovals) > max(spiculated) + 0.05


@settings(max_examples=40, deadline=None)
@given(
    kind=st.sampled_from(KINDS),
    seed=st.integers(0, 2**32 - 1),
    size=st.tuples(st.integers(160, 420), st.integers(160, 420)),
)
def test_any_phantom_is_one_lesion_away_from_border_and_label(kind: Kind, seed: int, size: tuple[int, int]) -> None:
    phantom = make_phantom(kind, seed, size)
    lesion = phantom.mask > 0
    assert phantom.image.shape == phantom.mask.shape == size
    assert phantom.image.dtype == phantom.mask.dtype == np.uint8
    assert set(np.unique(phantom.mask)) == {0, 255}
    assert ndimage.label(lesion)[1] == 1
    assert lesion.sum() > 500
    rows, columns = np.nonzero(lesion)
    assert rows.min() > 0
    assert columns.min() > 0
    assert columns.max() < size[1] - 1
    assert rows.max() < size[0] - 16  # the label's lines
    width, height = np.ptp(columns), np.ptp(rows)
    assert width > height if kind == "oval" else height > width


def test_lesions_look_as_their_kind_does_on_ultrasound() -> None:
    def contrasts(kind: Kind) -> tuple[float, float]:
        """Mean grey of (lesion, just below it) less that of the tissue beside it, over many seeds."""
        dark, below = [], []
        for seed in SEEDS:
            phantom = phantom_of(kind, seed)
            left, top, width, height = shape(phantom.mask).GetBoundingBox(1)
            image = phantom.image.astype(float)
            beside = np.delete(image, np.s_[left - 5 : left + width + 5], axis=1)
            middle = np.s_[left + width // 4 : left + 3 * width // 4]
            under = np.s_[top + height + 5 : top + height + 45]
            dark.append(image[phantom.mask > 0].mean() - beside[top : top + height].mean())
            below.append(image[under, middle].mean() - beside[under].mean())
        return float(np.mean(dark)), float(np.mean(below))

    oval_dark, oval_below = contrasts("oval")
    spiculated_dark, spiculated_below = contrasts("spiculated")
    assert oval_dark < -15
    assert spiculated_dark < -20
    assert oval_below > 5  # posterior enhancement
    assert spiculated_below < -15  # posterior shadowing


def test_bad_requests_are_refused_in_a_sentence(tmp_path: Path) -> None:
    with pytest.raises(RadllmError, match="no phantom 'round': ask for oval or spiculated"):
        make_phantom("round")  # type: ignore[arg-type]
    with pytest.raises(RadllmError, match="100 x 400 pixels cannot hold a lesion"):
        make_phantom("oval", size=(100, 400))
    (tmp_path / "file").write_text("")
    with pytest.raises(RadllmError, match="folder file cannot be made"):
        write_phantoms(tmp_path / "file")
