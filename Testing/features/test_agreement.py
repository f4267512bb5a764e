"""PyRadiomics' own way is taken where ours would give other values, and the provenance says so."""

from __future__ import annotations

import logging
import re
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from functools import partial
from typing import Any

import numpy as np
import pytest
import SimpleITK as sitk

radiomics = pytest.importorskip("radiomics")
from radiomics import base, firstorder, imageoperations, shape
from radiomics.featureextractor import RadiomicsFeatureExtractor

from radllm_backend.errors import RadllmError
from radllm_backend.features import agreement, extraction, mesh, pyradiomics
from radllm_backend.features.extraction import extract, measure, preset_names
from radllm_backend.imaging.lesion import Lesion
from radllm_backend.server import protocol
from Testing.support.whole_images import lesion_of, some_settings, whole

OWN = re.sub("^v", "", radiomics.__version__)
SLICE = some_settings(2, {"Original": {}, "LoG": {"sigma": [1.0]}, "Square": {}, "Wavelet": {}}, binCount=8)
SCALED = some_settings(2, {"Original": {}}, "min-max", binCount=8)
VOLUME = some_settings(3, {"Original": {}}, normalize=True, normalizeScale=100, binWidth=20)


def forget() -> None:
    """What was made of this process's PyRadiomics."""
    for made in (agreement._agrees, pyradiomics._sharing, pyradiomics._quick_shape, mesh._surfaces, mesh._volumes):
        made.cache_clear()


@pytest.fixture(autouse=True)
def asked_anew() -> Iterator[None]:
    forget()
    yield
    forget()


@pytest.fixture(scope="module")
def flat() -> Lesion:
    grid = np.indices((50, 60))
    grey = np.random.default_rng(0).integers(0, 900, (50, 60)).astype(np.uint16)
    return lesion_of(grey, ((grid[0] - 25) / 6) ** 2 + ((grid[1] - 30) / 9) ** 2 <= 1)


@pytest.fixture(scope="module")
def solid() -> Lesion:
    grid = np.indices((14, 15, 16))
    grey = np.random.default_rng(1).normal(300, 80, (14, 15, 16))
    return lesion_of(grey, sum((axis - 7) ** 2 for axis in grid) <= 12, (0.7, 1.0, 1.6))


@pytest.fixture
def executions(monkeypatch: pytest.MonkeyPatch) -> list[tuple[int, ...]]:
    """Sizes of the images that PyRadiomics' own way measured."""
    sizes: list[tuple[int, ...]] = []
    execute = RadiomicsFeatureExtractor.execute

    def counted(self: Any, image: sitk.Image, *more: Any, **named: Any) -> Any:
        sizes.append(image.GetSize())
        return execute(self, image, *more, **named)

    monkeypatch.setattr(RadiomicsFeatureExtractor, "execute", counted)
    return sizes


def size(dimension: int) -> tuple[int, ...]:
    """Of the few voxels that are compared."""
    return agreement._SHAPE[:dimension][::-1]


def said(caplog: pytest.LogCaptureFixture) -> list[str]:
    """What the package itself logged; PyRadiomics tells of all that it does."""
    return [record.getMessage() for record in caplog.records if record.name.startswith("radllm_backend")]


# --- the usual case -------------------------------------------------------------------------------------------------


def test_usually_our_way_measures_and_is_compared_once_a_filter(flat, executions, caplog):
    with caplog.at_level(logging.DEBUG, "radllm_backend"):
        found = [extract(flat, SLICE) for _ in range(3)]
    assert executions == [size(2)] * 4
    assert [one.extraction.versions["pyradiomics"] for one in found] == [OWN] * 3
    assert not said(caplog)


def test_a_filter_is_compared_when_it_is_enabled_and_a_dimension_when_it_comes(flat, solid, executions):
    measure(flat, SCALED)
    measure(solid, VOLUME)
    measure(flat, SCALED)
    assert executions == [size(2), size(3)]


def test_the_mesh_is_usually_ours(solid, monkeypatch):
    asked = []
    coefficients = pyradiomics.mesh_coefficients
    monkeypatch.setattr(pyradiomics, "mesh_coefficients", lambda *given: asked.append(1) or coefficients(*given))
    measure(solid, VOLUME)
    measure(solid, VOLUME)
    assert asked == [1] * 3


def test_threads_compare_once_together(flat, executions):
    with ThreadPoolExecutor(4) as pool:
        found = list(pool.map(lambda _: measure(flat, SCALED), range(8)))
    assert executions == [size(2)]
    assert found == [found[0]] * 8


@pytest.mark.parametrize("preset", preset_names())
def test_the_presets_fit_this_pyradiomics(preset):
    settings = extraction.load_settings(preset)
    dimension = settings.dimension or 2
    assert agreement.agrees(extraction._extractor(settings.canonical_parameters(), dimension), dimension)


@pytest.mark.parametrize("image_type", [*pyradiomics._ONE_IMAGE, "Wavelet", "LoG", "LBP3D"])
@pytest.mark.parametrize("dimension", [2, 3])
def test_every_filter_fits_this_pyradiomics(dimension, image_type):
    assert agreement._difference(dimension, image_type) == ""


# --- another PyRadiomics --------------------------------------------------------------------------------------------


def other_moments(patch):
    moment = firstorder.RadiomicsFirstOrder._moment
    patch.setattr(firstorder.RadiomicsFirstOrder, "_moment", staticmethod(lambda a, moment_=1: 2 * moment(a, moment_)))


def other_binning(patch):
    binning = base.RadiomicsFeaturesBase._applyBinning

    def apply(self, matrix):
        self.settings = {**self.settings, "binCount": 5}
        return binning(self, matrix)

    patch.setattr(base.RadiomicsFeaturesBase, "_applyBinning", apply)


def other_edges(patch):
    """Edges of the bins that depend on more than the darkest and the brightest voxel."""
    edges = imageoperations.getBinEdges
    patch.setattr(
        imageoperations,
        "getBinEdges",
        lambda values, **own: np.sort(np.append(edges(values, **own)[1:-1], [values.min(), 2 * values.mean()])),
    )


def no_edges(patch):
    """A PyRadiomics that bins without the function that ours asks."""
    edges = imageoperations.getBinEdges

    def bin_image(matrix, inside, **own):
        binned = np.zeros(matrix.shape, int)
        binned[inside] = np.digitize(matrix[inside], edges(matrix[inside], **own))
        return binned, None

    patch.setattr(imageoperations, "binImage", bin_image)
    patch.delattr(imageoperations, "getBinEdges")


def other_log(patch):
    log = imageoperations.getLoGImage

    def doubled(image, mask, **own):
        for filtered, name, used in log(image, mask, **own):
            yield filtered * 2, name, used

    patch.setattr(imageoperations, "getLoGImage", doubled)


def other_square(patch):
    """One that depends on the spread of the whole image."""

    def square(image, mask, **own):
        yield sitk.Cast(image, sitk.sitkFloat64) ** 2 / sitk.GetArrayFromImage(image).std(), "square", own

    patch.setattr(imageoperations, "getSquareImage", square)


def other_names(patch):
    wavelet = imageoperations.getWaveletImage

    def renamed(image, mask, **own):
        for filtered, name, used in wavelet(image, mask, **own):
            yield filtered, name.replace("wavelet", "wavelets"), used

    patch.setattr(imageoperations, "getWaveletImage", renamed)


def other_mesh(patch):
    """Shape that is prepared by what has no code to rebuild."""
    begin = shape.RadiomicsShape._initSegmentBasedCalculation

    class Prepared:
        def __get__(self, instance, owner):
            return partial(begin, instance)

    patch.setattr(shape.RadiomicsShape, "_initSegmentBasedCalculation", Prepared())


def no_cubes(patch):
    """A mesh that is not measured of so few voxels."""
    coefficients = shape.cShape.calculate_coefficients

    def measured(mask, spacing):
        if mask.size < 50:
            raise RuntimeError("too few voxels")
        return coefficients(mask, spacing)

    patch.setattr(shape.cShape, "calculate_coefficients", measured)


def other_volume(patch):
    """A volume that is not the sum of its cubes'."""
    coefficients = shape.cShape.calculate_coefficients

    def measured(mask, spacing):
        surface, volume, diameters = coefficients(mask, spacing)
        return surface, volume if mask.size < 50 else volume * 1.01, diameters

    patch.setattr(shape.cShape, "calculate_coefficients", measured)


def other_normalisation(patch):
    normalise = imageoperations.normalizeImage
    patch.setattr(imageoperations, "normalizeImage", lambda image, **own: normalise(image, **own) + 1)


OTHERS = [
    (other_moments, "SLICE", "another value of original_firstorder_Kurtosis"),
    (other_binning, "SLICE", "another value of original_firstorder_Entropy"),
    (other_edges, "SLICE", "another value of original_"),
    (no_edges, "SLICE", "it fails: AttributeError: .*getBinEdges"),
    (other_log, "SLICE", "another value of log-sigma-0-8-mm-3D_firstorder_"),
    (other_square, "SLICE", "another value of square_firstorder_"),
    (other_names, "SLICE", "other features"),
    (other_binning, "SCALED", "another value of original_firstorder_Entropy"),
    (other_mesh, "VOLUME", "it fails: AttributeError: .*__globals__"),
    (no_cubes, "VOLUME", "it fails: RuntimeError: too few voxels"),
    (other_volume, "VOLUME", "another value of original_shape_MeshVolume"),
    (other_normalisation, "VOLUME", "another value of original_"),
]


@pytest.mark.parametrize(("change", "settings", "reason"), OTHERS, ids=lambda one: getattr(one, "__name__", None))
def test_where_it_differs_its_own_way_measures(change, settings, reason, flat, solid, monkeypatch, caplog):
    chosen, lesion = globals()[settings], solid if settings == "VOLUME" else flat
    usual = measure(lesion, chosen)
    asked = list(usual)[-2:]
    change(monkeypatch)
    forget()
    with caplog.at_level(logging.INFO, "radllm_backend"):
        found = [extract(lesion, chosen) for _ in range(2)]
    assert [one.values for one in found] == [whole(lesion, chosen)] * 2
    assert [one.extraction.versions["pyradiomics"] for one in found] == [f"{OWN}+execute"] * 2
    (line,) = said(caplog)
    assert re.match(rf"PyRadiomics {re.escape(OWN)} measures by its own execute\(\), .*\({reason}", line)
    if change is not other_names:
        assert measure(lesion, chosen, features=asked) == {name: found[0].values[name] for name in asked}


def test_only_settings_with_the_filter_that_differs_fall_back(flat, monkeypatch):
    other_log(monkeypatch)
    versions = [extract(flat, chosen).extraction.versions["pyradiomics"] for chosen in (SCALED, SLICE, SCALED)]
    assert versions == [OWN, f"{OWN}+execute", OWN]


def test_a_filter_that_we_do_not_know_is_measured_by_its_own_way(flat, monkeypatch):
    monkeypatch.delitem(pyradiomics._ONE_IMAGE, "Square")
    found = extract(flat, SLICE)
    assert found.values == whole(flat, SLICE)
    assert found.extraction.versions["pyradiomics"] == f"{OWN}+execute"


def test_by_its_own_way_too_what_cannot_be_measured_is_said(flat, monkeypatch):
    other_moments(monkeypatch)
    with pytest.raises(RadllmError, match="yield no feature 'original_glcm_Kontrast' of this 2D image"):
        measure(flat, SCALED, features=["original_glcm_Contrast", "original_glcm_Kontrast"])
    large = some_settings(2, {"Original": {}}, minimumROISize=10**6)
    with pytest.raises(RadllmError, match=r"cannot measure this lesion \(.*too small"):
        measure(flat, large)


# --- provenance -----------------------------------------------------------------------------------------------------


def test_what_its_own_way_measured_can_be_sent_to_a_server(flat, monkeypatch):
    other_moments(monkeypatch)
    features = extract(flat, SCALED)
    assert protocol.sent_lesion(features).extraction.versions["pyradiomics"] == f"{OWN}+execute"


@pytest.mark.parametrize(
    ("version", "label"),
    [("3.1.4", "3.1.4+execute"), ("3.0.1.post15+g2791e23.dirty", "3.0.1.post15+g2791e23.dirty.execute")],
)
def test_a_version_has_one_local_label_as_packages_have_it(version, label):
    from packaging.version import Version

    assert agreement.executed(version) == label
    assert Version(label).local.endswith("execute")
    assert re.fullmatch(r"[0-9][0-9A-Za-z.+_-]{0,39}", label)
