"""Other outlines of a lesion, and what the model makes of them."""

from __future__ import annotations

import json
from pathlib import Path

import numpy as np
import pytest
import SimpleITK as sitk
from hypothesis import assume, given, settings
from hypothesis import strategies as st
from scipy import ndimage

from Testing.support.command_line import succeed

pytest.importorskip("torch")
pytest.importorskip("radiomics")

from radllm_backend import Lesion, Model, extract
from radllm_backend.cli.console import show_prediction
from radllm_backend.features.extraction import measure
from radllm_backend.models.outline_stability import AMPLITUDE, FARTHEST, outlines, stability
from radllm_backend.models.prediction import DescriptorShare, MaskVariant, Prediction, Stability

SMALLER, LARGER = "one pixel smaller", "one pixel larger"
MOVED = ["moved at random (1)", "moved at random (2)", "moved at random (3)"]
TOUCHING = np.ones((3, 3), bool)  # corners included


def drawn(mask: np.ndarray, spacing: tuple[float, ...] | None = None) -> Lesion:
    """A lesion of this outline on noise."""
    noise = sitk.GetImageFromArray(np.random.default_rng(0).integers(0, 255, mask.shape).astype(np.uint8))
    marked = sitk.GetImageFromArray(mask.astype(np.uint8))
    for image in (noise, marked):
        image.SetSpacing(spacing or (1.0,) * mask.ndim)
    return Lesion.from_images(noise, marked, modality="US")


def ellipse(shape: tuple[int, ...], centre: tuple[float, ...], half: tuple[float, ...]) -> np.ndarray:
    grid = np.indices(shape)
    return sum(((axis - middle) / size) ** 2 for axis, middle, size in zip(grid, centre, half, strict=True)) <= 1


def array(mask: sitk.Image) -> np.ndarray:
    return sitk.GetArrayFromImage(mask).astype(bool)


def parts(mask: np.ndarray) -> int:
    return ndimage.label(mask, np.ones((3,) * mask.ndim))[1]


@pytest.fixture(scope="module")
def model(tiny_model: Path, tiny_base: Path) -> Model:
    return Model.load(tiny_model, tiny_base)


@pytest.fixture(scope="module")
def lesion(phantom_folder: Path) -> Lesion:
    return Lesion.from_files(phantom_folder / "3.png", phantom_folder / "3_mask.png", modality="US", spacing=0.08)


@pytest.fixture(scope="module")
def prediction(lesion: Lesion, model: Model) -> Prediction:
    return model.predict(extract(lesion, model.settings), explain=False)


# --- outlines -------------------------------------------------------------------------------------------------------

lesions = st.builds(
    lambda half, centre: ellipse((60, 70), centre, half),
    st.tuples(st.floats(4, 20), st.floats(4, 20)),
    st.tuples(st.floats(0, 59), st.floats(0, 69)),
)
"""Ellipses, some of them cut off by an edge or a corner of the image."""


@settings(max_examples=60, deadline=None)
@given(lesions)
def test_an_outline_moved_at_random_is_one_part_and_stays_near(mask):
    assume(min(np.ptp(axis) for axis in np.nonzero(mask)) >= 5)
    depth, height = ndimage.distance_transform_edt(mask) - 0.5, ndimage.distance_transform_edt(~mask) - 0.5
    again = outlines(drawn(mask))
    for name in MOVED:
        moved = array(outlines(drawn(mask))[name])
        assert np.array_equal(moved, array(again[name]))
        assert parts(moved) == 1
        assert moved[depth > FARTHEST].all()
        assert not moved[height > FARTHEST].any()


@settings(max_examples=60, deadline=None)
@given(lesions)
def test_a_pixel_more_or_less_is_what_scipy_makes_of_it(mask):
    assume(min(np.ptp(axis) for axis in np.nonzero(mask)) >= 5)
    changed = outlines(drawn(mask), seeds=0)
    assert list(changed) == [SMALLER, LARGER]
    assert np.array_equal(array(changed[SMALLER]), ndimage.binary_erosion(mask, border_value=1))
    assert np.array_equal(array(changed[LARGER]), ndimage.binary_dilation(mask))


def test_each_seed_moves_the_outline_otherwise_and_by_about_a_pixel():
    mask = ellipse((120, 120), (60, 60), (40, 30))
    around = ndimage.distance_transform_edt(mask) - ndimage.distance_transform_edt(~mask)
    moved = [array(outlines(drawn(mask), seeds=8)[f"moved at random ({seed})"]) for seed in range(1, 9)]
    assert len({one.tobytes() for one in moved}) == 8
    changed = np.mean([(one != mask).sum() for one in moved])
    contour = (np.abs(around) == 1).sum() / 2
    # The mean absolute value of a normal variable is sqrt(2 / pi) of its deviation; pixels are whole ones.
    assert changed / contour == pytest.approx(AMPLITUDE * np.sqrt(2 / np.pi), abs=0.35)
    assert abs(np.mean([one.sum() for one in moved]) / mask.sum() - 1) < 0.03


def test_an_outline_does_not_depend_on_where_the_lesion_lies():
    near, far = ellipse((90, 90), (30, 30), (14, 10)), ellipse((90, 90), (55, 50), (14, 10))
    for name, other in outlines(drawn(near)).items():
        assert np.array_equal(np.roll(array(other), (25, 20), (0, 1)), array(outlines(drawn(far))[name])), name


def test_where_the_image_cuts_a_lesion_off_the_outline_stays():
    mask = ellipse((60, 60), (0, 30), (20, 16))
    for name, other in outlines(drawn(mask)).items():
        assert array(other)[0, 20:40].all(), name
    assert not array(outlines(drawn(mask))[SMALLER])[20].any()


def test_a_lesion_as_large_as_its_image_has_no_other_outline():
    mask = np.ones((20, 20), bool)
    assert all(array(other).all() for other in outlines(drawn(mask)).values())


def test_no_more_parts_are_kept_than_were_drawn():
    bridge = ellipse((60, 90), (30, 20), (15, 15)) | ellipse((60, 90), (30, 60), (18, 18))
    bridge[30, 20:60] = True
    smaller = array(outlines(drawn(bridge))[SMALLER])
    assert parts(smaller) == 1
    assert not smaller[:, :40].any()
    two = ellipse((60, 90), (30, 20), (15, 15)) | ellipse((60, 90), (30, 65), (18, 18))
    assert all(parts(array(other)) == 2 for other in outlines(drawn(two)).values())


@pytest.mark.parametrize(("thickness", "slices"), [(0.7, 9), (1.0, 9), (5.0, 7)])
def test_a_volume_keeps_its_slices_where_they_are_thick(thickness, slices):
    mask = ellipse((16, 50, 50), (8, 25, 25), (3.9, 14, 14))
    lesion = drawn(mask, (0.7, 0.7, 0.7 * thickness))
    changed = {name: array(other) for name, other in outlines(lesion).items()}
    assert np.count_nonzero(changed[LARGER].any((1, 2))) == slices
    assert changed[SMALLER].sum() < mask.sum() < changed[LARGER].sum()
    for name in MOVED:
        assert parts(changed[name]) == 1
        assert 0.75 < changed[name].sum() / mask.sum() < 1.3
        assert thickness < 2 or np.array_equal(changed[name].any((1, 2)), mask.any((1, 2)))


# --- predictions ----------------------------------------------------------------------------------------------------


def test_the_range_is_that_of_the_same_lesion_with_other_masks(lesion, model, prediction):
    found = stability(lesion, model, prediction)
    assert [one.name for one in found.variants] == [SMALLER, LARGER, *MOVED]
    probabilities = [prediction.probability]
    calls = {prediction.call}
    for variant in found.variants:
        mask = outlines(lesion)[variant.name]
        other = Lesion.from_images(lesion.image, mask, modality="US")
        alone = model.predict(extract(other, model.settings), explain=False)
        assert variant.probability == pytest.approx(alone.probability, abs=1e-9)
        probabilities.append(variant.probability)
        calls.add(alone.call)
    assert len(set(probabilities)) > 3
    assert (found.low, found.high) == (min(probabilities), max(probabilities))
    assert set(found.calls) == calls
    assert stability(lesion, model, prediction) == found


def test_the_commonest_call_comes_first(lesion, model, prediction):
    found = stability(lesion, model, prediction)
    assert len(found.calls) == 1, "choose another phantom"
    (usual,) = found.calls
    other = "likely benign" if usual == "likely malignant" else "likely malignant"
    assert stability(lesion, model, prediction.model_copy(update={"call": other})).calls == [usual, other]


def test_descriptors_and_confidence_are_those_of_the_prediction(lesion, model, prediction, monkeypatch):
    asked = []

    def predict_many(lesions, **options):
        asked.append((lesions, options))
        return [prediction] * len(lesions)

    monkeypatch.setattr(model, "predict_many", predict_many)
    share = DescriptorShare(descriptor="mass_shape", name="Mass Shape", value="oval")
    band = prediction.band.model_copy(update={"confidence": 0.7})
    stability(lesion, model, prediction.model_copy(update={"descriptors": [share], "band": band}), seeds=1)
    ((lesions, options),) = asked
    assert [row.descriptors for row in lesions] == [{"mass_shape": "oval"}] * 3
    assert options == {"confidence": 0.7, "explain": False}


def test_what_is_left_of_a_small_lesion(model):
    small = np.zeros((40, 40), bool)
    small[20:22, 20:22] = True
    lesion = drawn(small)
    prediction = model.predict(extract(lesion, model.settings), explain=False)
    found = {one.name: one.probability for one in stability(lesion, model, prediction).variants}
    assert found[SMALLER] is None
    assert found[LARGER] is not None
    assert list(found) == [SMALLER, LARGER, *MOVED]


def test_where_no_other_outline_can_be_measured_the_prediction_stands_alone(lesion, model, prediction, monkeypatch):
    monkeypatch.setattr("radllm_backend.models.outline_stability._measured", lambda *arguments: None)
    found = stability(lesion, model, prediction)
    assert (found.low, found.high, found.calls) == (prediction.probability, prediction.probability, [prediction.call])
    assert {one.probability for one in found.variants} == {None}


def test_an_undefined_feature_is_no_probability(lesion, model, prediction, monkeypatch):
    wanted = model.card.features[0].feature

    def undefined(other, chosen, features):
        assert features == [row.feature for row in model.card.features]  # no others are computed
        return {**measure(other, chosen, features=features), wanted: None}

    monkeypatch.setattr("radllm_backend.models.outline_stability.measure", undefined)
    assert {one.probability for one in stability(lesion, model, prediction).variants} == {None}


def test_a_lesion_in_a_volume(volume_model, monkeypatch):
    monkeypatch.setenv("RADLLM_CACHE", str(volume_model.parent / "cache"))
    model = Model.load(volume_model)
    lesion = drawn(ellipse((16, 40, 40), (8, 20, 20), (4, 9, 8)), (0.7, 0.7, 1.0))
    prediction = model.predict(extract(lesion, model.settings), explain=False)
    found = stability(lesion, model, prediction)
    assert all(one.probability is not None for one in found.variants)
    assert found.low < found.high


# --- what is shown --------------------------------------------------------------------------------------------------


def test_the_range_is_shown_with_what_could_not_be_measured(prediction, capsys):
    variants = [MaskVariant(name=SMALLER), MaskVariant(name=LARGER, probability=0.7)]
    found = Stability(low=0.2, high=0.7, calls=["likely malignant", "uncertain"], variants=variants)
    show_prediction(prediction.model_copy(update={"stability": found}), Path("report.html"))
    assert (
        "Outlined slightly otherwise: 20.0% to 70.0%, likely malignant or uncertain (not measurable: one pixel smaller)"
    ) in capsys.readouterr().out.splitlines()


def test_classify_with_stability(phantom_folder, tiny_model, tiny_base, tmp_path):
    files = phantom_folder / "3.png", phantom_folder / "3_mask.png"
    options = ("--model", tiny_model, "--base-model", tiny_base, "-o")
    plain = succeed("classify", *files, *options, tmp_path / "plain")
    asked = succeed("classify", *files, "--stability", *options, tmp_path / "asked")
    without, found = (json.loads((tmp_path / name / "prediction.json").read_text()) for name in ("plain", "asked"))
    assert without.pop("stability") is None
    assert len(found.pop("stability")["variants"]) == 5
    assert found == without
    (line,) = [line for line in asked.output.splitlines() if line.startswith("Outlined slightly otherwise: ")]
    assert found["call"] in line
    assert "Outlined slightly otherwise" not in plain.output
