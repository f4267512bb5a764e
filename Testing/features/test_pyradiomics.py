"""Our way through PyRadiomics gives the values of PyRadiomics' own way, on the whole image."""

from __future__ import annotations

import importlib.util
import math
from concurrent.futures import ThreadPoolExecutor

import numpy as np
import pytest
import SimpleITK as sitk
from hypothesis import given
from hypothesis import strategies as st

pytest.importorskip("radiomics")

from radllm_backend.errors import RadllmError
from radllm_backend.features.extraction import extract, load_settings, measure
from radllm_backend.features.extraction_settings import Settings
from radllm_backend.imaging.lesion import Lesion
from Testing.features.generated_cases import cases
from Testing.support.whole_images import lesion_of, some_settings, whole

pytestmark = pytest.mark.filterwarnings("ignore::RuntimeWarning")  # means of nothing, in PyRadiomics
POINTWISE = ("Square", "SquareRoot", "Logarithm", "Exponential")


@pytest.fixture(autouse=True, scope="module")
def one_thread():
    """Sums over an image are rounded otherwise with more of them."""
    before = sitk.ProcessObject.GetGlobalDefaultNumberOfThreads()
    sitk.ProcessObject.SetGlobalDefaultNumberOfThreads(1)
    yield
    sitk.ProcessObject.SetGlobalDefaultNumberOfThreads(before)


# --- cases ----------------------------------------------------------------------------------------------------------


@st.composite
def lesions(draw, dimension: int, smallest: int, largest: int) -> Lesion:
    """An ellipse on noise, often cut off by the edge of the image."""
    shape = draw(st.tuples(*[st.integers(smallest, largest)] * dimension))
    centre = [draw(st.floats(0, 1)) * (length - 1) for length in shape]
    half = [draw(st.floats(3, 6)) for _ in shape]
    random = np.random.default_rng(draw(st.integers(0, 99)))
    grid = np.indices(shape)
    mask = sum(((axis - middle) / size) ** 2 for axis, middle, size in zip(grid, centre, half, strict=True)) <= 1
    grey = random.normal(300, 80, shape) + 40 * np.sin(grid[0] / 3)
    kind = draw(st.sampled_from([np.int16, np.uint16, np.float32, np.float64]))
    return lesion_of(grey.astype(kind), mask, draw(st.tuples(*[st.sampled_from([0.7, 1.0, 1.6])] * dimension)))


preparations = st.fixed_dictionaries(
    {},
    optional={
        "normalize": st.just(True),
        "removeOutliers": st.sampled_from([1, 2.5]),
        "normalizeScale": st.sampled_from([1, 100]),
        "resegmentRange": st.just([-2, 2]),
        "resegmentShape": st.booleans(),
        "preCrop": st.just(True),
        "minimumROISize": st.integers(1, 60),
    },
).map(lambda chosen: chosen | ({"resegmentMode": "sigma"} if "resegmentRange" in chosen else {}))
bins = st.one_of(
    st.fixed_dictionaries({"binCount": st.sampled_from([6, 16])}),
    st.fixed_dictionaries({"binWidth": st.sampled_from([20, 35.5])}),
)
wavelets = st.fixed_dictionaries(
    {"wavelet": st.sampled_from(["coif1", "haar", "db4", "bior3.3"])},
    optional={"level": st.just(2), "start_level": st.just(1)},
)


# --- the two ways ---------------------------------------------------------------------------------------------------


def check(lesion: Lesion, chosen: Settings) -> None:
    try:
        expected = whole(lesion, chosen)
    except ValueError:
        with pytest.raises(RadllmError, match="PyRadiomics cannot measure this lesion"):
            measure(lesion, chosen)
        return
    ours = measure(lesion, chosen)
    assert list(ours) == list(expected)
    for name, value in expected.items():
        tolerance = 1e-8 if name.startswith("log-") else 1e-9
        if math.isfinite(value):
            assert ours[name] == pytest.approx(value, rel=tolerance, abs=1e-12), name
        else:
            assert ours[name] is None, name


@pytest.mark.parametrize("preset", ["mammography", "breast-ultrasound"])
@cases(3)
@given(data=st.data())
def test_presets_for_a_slice(preset, data):
    check(data.draw(lesions(2, 20, 60)), load_settings(preset))


@pytest.mark.parametrize("preset", ["ct", "mr"])
@cases(3)
@given(data=st.data())
def test_presets_for_a_volume(preset, data):
    check(data.draw(lesions(3, 14, 24)), load_settings(preset))


@cases(8)
@given(lesions(2, 30, 150), preparations, bins, st.sampled_from(["as-stored", "min-max"]), wavelets)
def test_filters_of_a_slice(lesion, preparation, discretised, intensity, wavelet):
    scaled = {"binCount": 16} if intensity == "min-max" or "normalize" in preparation else discretised
    images = {"Original": {}, "Wavelet": wavelet, "LoG": {"sigma": [0.8]}, "Gradient": {}, "LBP2D": {}}
    check(lesion, some_settings(2, images, intensity, **preparation, **scaled))


@cases(6)
@given(lesions(3, 14, 40), preparations, bins, wavelets.map(lambda own: own | {"level": 1}))
def test_filters_of_a_volume(lesion, preparation, discretised, wavelet):
    scaled = {"binCount": 16} if "normalize" in preparation else discretised
    check(lesion, some_settings(3, {"Wavelet": wavelet, "LoG": {"sigma": [0.5]}}, **preparation, **scaled))


@cases(5)
@given(lesions(3, 14, 24), preparations, st.sampled_from([0, 1, 2]))
def test_a_volume_slice_by_slice(lesion, preparation, axis):
    flat = {"force2D": True, "force2Ddimension": axis, "weightingNorm": "euclidean"}
    check(lesion, some_settings(3, {"Original": {}, "Wavelet": {}, "LBP2D": {}}, binCount=16, **flat, **preparation))


@cases(5)
@given(lesions(2, 20, 60), preparations, st.sampled_from(["as-stored", "min-max"]))
def test_filters_that_scale_by_the_whole_images_maximum(lesion, preparation, intensity):
    check(lesion, some_settings(2, {one: {} for one in POINTWISE}, intensity, binCount=16, **preparation))


@cases(4)
@given(lesions(3, 14, 24), preparations, st.sampled_from(["sitkBSpline", "sitkLinear", "sitkNearestNeighbor"]))
def test_resampling(lesion, preparation, interpolator):
    resampling = {"resampledPixelSpacing": [1.2, 1, 0], "interpolator": interpolator, "binCount": 16}
    check(lesion, some_settings(3, {"Original": {}, "Square": {}, "Gradient": {}}, **resampling, **preparation))


# --- small and flat lesions -----------------------------------------------------------------------------------------


@pytest.mark.parametrize("voxels", [[(5, 5, 5), (5, 6, 6)], [(0, 0, 0), (0, 1, 1), (1, 1, 0)], [(5, 5, 5), (7, 9, 3)]])
def test_a_few_voxels(voxels):
    mask = np.zeros((12, 13, 14), bool)
    mask[tuple(np.transpose(voxels))] = True
    grey = np.random.default_rng(0).normal(100, 20, mask.shape)
    check(lesion_of(grey, mask), some_settings(3, {"Original": {}, "Wavelet": {}}, binCount=8))


def in_one_slice(axis):
    """Noise, and a lesion in it that is one voxel thick along this axis."""
    mask = np.zeros((12, 13, 14), bool)
    cut = [slice(3, 9)] * 3
    cut[axis] = slice(6, 7)
    mask[tuple(cut)] = True
    return np.random.default_rng(0).normal(100, 20, mask.shape), mask


@pytest.mark.parametrize("axis", [0, 1, 2])
def test_a_lesion_in_one_slice_of_a_volume(axis):
    grey, mask = in_one_slice(axis)
    check(lesion_of(grey, mask, (0.7, 0.8, 3.0)), some_settings(3, {"Original": {}}, binCount=8))


@pytest.mark.parametrize("axis", [0, 1, 2])
def test_a_lesion_in_one_slice_measured_as_flat(axis):
    grey, mask = in_one_slice(axis)
    parameters = {
        "featureClass": {"shape": None, "shape2D": None, "glcm": None},
        "setting": {"force2D": True, "force2Ddimension": axis, "binCount": 8},
    }
    check(lesion_of(grey, mask, (0.7, 0.8, 3.0)), Settings.from_dict(parameters))


@pytest.mark.parametrize("refused", [{"minimumROISize": 36}, {"minimumROIDimensions": 3}])
def test_a_lesion_too_small_for_the_settings(refused):
    mask = np.zeros((12, 13, 14), bool)
    mask[6, 3:9, 3:9] = True
    lesion = lesion_of(np.random.default_rng(0).normal(100, 20, mask.shape), mask)
    with pytest.raises(ValueError, match=r"too (few|small)"):
        whole(lesion, some_settings(3, {"Original": {}}, **refused))
    with pytest.raises(RadllmError, match=r"cannot measure this lesion \(.*too (few|small)"):
        measure(lesion, some_settings(3, {"Original": {}}, **refused))


# --- margins --------------------------------------------------------------------------------------------------------


def test_pyradiomics_is_not_given_pixels_far_from_the_lesion(monkeypatch):
    """A million pixels and a lesion of a hundred: no filter sees more than a few thousand."""
    from radiomics import imageoperations

    seen = []
    wavelet = imageoperations.getWaveletImage
    spy = lambda image, mask, **own: seen.append(image.GetNumberOfPixels()) or wavelet(image, mask, **own)  # noqa: E731
    grey = np.random.default_rng(0).integers(0, 900, (1000, 1000)).astype(np.uint16)
    mask = np.zeros_like(grey)
    mask[500:510, 300:310] = 1
    lesion, chosen = lesion_of(grey, mask), some_settings(2, {"Wavelet": {}}, binCount=8)
    measure(lesion, chosen)  # at first PyRadiomics' own way measures a few voxels too
    monkeypatch.setattr(imageoperations, "getWaveletImage", spy)
    measure(lesion, chosen)
    assert seen == [18 * 18]


# --- features asked for ---------------------------------------------------------------------------------------------

ALL = some_settings(2, {"Original": {}, "Wavelet": {}, "LoG": {"sigma": [1.0, 2.0]}, "Square": {}}, binCount=8)


@pytest.fixture(scope="module")
def oval() -> Lesion:
    grid = np.indices((60, 70))
    grey = np.random.default_rng(0).integers(0, 900, (60, 70)).astype(np.uint16)
    return lesion_of(grey, ((grid[0] - 30) / 6) ** 2 + ((grid[1] - 30) / 9) ** 2 <= 1)


@pytest.fixture(scope="module")
def everything(oval) -> dict[str, float | None]:
    return measure(oval, ALL)


@cases(15)
@given(data=st.data())
def test_features_asked_for_are_those_of_all(data, oval, everything):
    asked = data.draw(st.sets(st.sampled_from(list(everything)), min_size=1, max_size=8))
    found = measure(oval, ALL, features=asked)
    assert found == {name: everything[name] for name in asked}
    assert list(found) == [name for name in everything if name in asked]


def test_filters_that_nothing_is_asked_of_do_not_run(oval, everything, monkeypatch):
    from radiomics import imageoperations

    def never(*args, **own):
        raise AssertionError

    for name in ("getWaveletImage", "getSquareImage"):
        monkeypatch.setattr(imageoperations, name, never)
    monkeypatch.setattr("radllm_backend.features.pyradiomics.laplacian_of_gaussian", never)
    assert measure(oval, ALL, features=["original_glcm_Contrast"]) == {
        "original_glcm_Contrast": everything["original_glcm_Contrast"]
    }


def test_extract_takes_the_names_too(oval, everything):
    features = extract(oval, ALL, features=["wavelet-LH_glszm_ZoneEntropy"])
    assert features.values == {"wavelet-LH_glszm_ZoneEntropy": everything["wavelet-LH_glszm_ZoneEntropy"]}
    assert features.extraction.settings_sha256 == ALL.sha256


@pytest.mark.parametrize(
    "name",
    [
        "original_glcm_Kontrast",
        "wavelet-LLH_glcm_Contrast",
        "original_shape_Sphericity",
        "Contrast",
        "gradient_glcm_Id",
    ],
)
def test_an_unknown_feature_is_named(oval, name):
    with pytest.raises(RadllmError, match=f"yield no feature '{name}' of this 2D image"):
        measure(oval, ALL, features=["original_glcm_Contrast", name])


def test_a_filter_that_pyradiomics_leaves_out_is_an_error_when_asked_for(oval):
    chosen = some_settings(2, {"Original": {}, "LoG": {"sigma": [200.0]}}, binCount=8)
    assert not any(name.startswith("log-") for name in measure(oval, chosen))
    with pytest.raises(RadllmError, match="yield no feature 'log-sigma-200-0-mm-3D_glcm_Id'"):
        measure(oval, chosen, features=["log-sigma-200-0-mm-3D_glcm_Id"])


def test_asking_for_nothing_is_an_error(oval):
    with pytest.raises(RadllmError, match="No feature is asked for"):
        measure(oval, ALL, features=[])


@pytest.mark.skipif(not importlib.util.find_spec("skimage"), reason="needs scikit-image")
def test_local_binary_patterns_are_named_as_pyradiomics_names_them(oval):
    chosen = some_settings(2, {"LBP2D": {}}, binCount=8)
    assert measure(oval, chosen, features=["lbp-2D_glcm_Id"])


# --- threads --------------------------------------------------------------------------------------------------------


def test_threads_do_not_disturb_each_other(oval, everything):
    sitk.ProcessObject.SetGlobalDefaultNumberOfThreads(3)
    volume = lesion_of(*(np.random.default_rng(1).normal(0, 1, (9, 9, 9)), np.pad(np.ones((5, 5, 5)), 2)))
    solid = some_settings(3, {"Original": {}}, binCount=8)
    alone = measure(volume, solid)
    with ThreadPoolExecutor(4) as pool:
        found = [pool.submit(measure, *((oval, ALL) if turn % 2 else (volume, solid))) for turn in range(8)]
    assert [one.result() for one in found] == [alone, everything] * 4
    assert sitk.ProcessObject.GetGlobalDefaultNumberOfThreads() == 3
