"""PyRadiomics through our own extraction."""

from __future__ import annotations

import ast
import csv
from pathlib import Path

import numpy as np
import pytest
import SimpleITK as sitk
import yaml

from radllm_backend.datasets.phantoms import make_phantom
from radllm_backend.errors import RadllmError
from radllm_backend.features.extraction import extract, load_settings, preset_names
from radllm_backend.features.extraction_settings import Settings
from radllm_backend.imaging.lesion import Lesion

pytest.importorskip("radiomics")

BASELINES = Path(__file__).resolve().parents[3] / "shared" / "data" / "pyradiomics"
CLASSES = ("shape", "shape2D", "firstorder", "glcm", "gldm", "glrlm", "glszm", "ngtdm")
# Settings of PyRadiomics 1 that later versions no longer know, and two that do not change a value.
OLD_SETTINGS = {"gldm_a", "additionalInfo", "preCrop"}


def lesion_2d(**changes) -> Lesion:
    phantom = make_phantom("oval", seed=1, size=(200, 160))
    return Lesion.from_images(
        sitk.GetImageFromArray(phantom.image), sitk.GetImageFromArray(phantom.mask // 255), **changes
    )


def lesion_3d(size=24) -> Lesion:
    random = np.random.default_rng(0)
    grid = np.stack(np.meshgrid(*[np.arange(size)] * 3, indexing="ij")) - size / 2
    image = sitk.GetImageFromArray(random.normal(100, 20, (size,) * 3))
    mask = sitk.GetImageFromArray((np.sqrt((grid**2).sum(0)) < size / 4).astype(np.uint8))
    for one in (image, mask):
        one.SetSpacing((1.0, 1.2, 2.0))
    return Lesion.from_images(image, mask)


def test_mammography_gives_the_67_features_of_the_paper():
    names = list(extract(lesion_2d(modality="MG"), "mammography").values)
    counts = {family: sum(f"_{family}_" in name for name in names) for family in CLASSES}
    assert {family: count for family, count in counts.items() if count} == {
        "shape2D": 9,
        "firstorder": 18,
        "glcm": 24,
        "glszm": 16,
    }
    assert load_settings("mammography").parameters["setting"]["binCount"] == 128


@pytest.mark.parametrize(("preset", "count"), [("breast-ultrasound", 102), ("ct", 107), ("mr", 107)])
def test_the_other_presets(preset, count):
    lesion = lesion_2d() if preset == "breast-ultrasound" else lesion_3d()
    features = extract(lesion, preset)
    assert len(features.values) == count
    assert features.extraction.preset == preset
    assert features.extraction.settings_sha256 == load_settings(preset).sha256
    assert all(value is not None for value in features.values.values())


def test_min_max_scaling_uses_the_whole_image_not_the_lesion():
    values = extract(lesion_2d(), "mammography").values
    assert values["original_firstorder_Maximum"] < 1
    assert values["original_firstorder_Minimum"] >= 0
    lesion = lesion_2d()
    brighter = sitk.Cast(lesion.image, sitk.sitkFloat64) * 3 + 100
    same = extract(Lesion.from_images(brighter, lesion.mask), "mammography").values
    assert same == pytest.approx(values, rel=1e-9)


def test_it_is_repeatable_and_leaves_itks_threads_alone():
    before = sitk.ProcessObject.GetGlobalDefaultNumberOfThreads()
    assert extract(lesion_2d(), "mammography") == extract(lesion_2d(), "mammography")
    assert sitk.ProcessObject.GetGlobalDefaultNumberOfThreads() == before


def test_the_settings_hash_tells_what_changes_a_value_and_nothing_else():
    settings = load_settings("mammography")
    renamed = Settings.from_dict(settings.to_dict(), "another name")
    assert renamed.sha256 == settings.sha256
    data = yaml.safe_load(yaml.safe_dump(settings.to_dict()))
    data["setting"]["binCount"] = 64
    assert Settings.from_dict(data).sha256 != settings.sha256
    data = settings.to_dict() | {"radllm": {"modality": "MG", "dimension": 2, "intensity": "as-stored"}}
    assert Settings.from_dict(data).sha256 != settings.sha256


def test_a_users_own_pyradiomics_file(tmp_path):
    own = tmp_path / "params.yaml"
    own.write_text("imageType: {Original: {}, Wavelet: {}}\nfeatureClass: {firstorder: [Mean, Energy]}\n")
    values = extract(lesion_2d(), own).values
    assert "original_firstorder_Mean" in values
    assert "wavelet-LH_firstorder_Energy" in values
    assert extract(lesion_2d(), own).extraction.preset == "custom"


@pytest.mark.parametrize(
    ("text", "sentence"),
    [
        ("setting: {binWidth: [", "not valid YAML"),
        ("just words", "holds no settings"),
        ("imageTypes: {Original: {}}", "unknown section 'imageTypes'"),
        ("setting: {binWidth: -3}", "PyRadiomics refuses these settings"),
        ("featureClass: {shapes: []}", "PyRadiomics refuses these settings"),
        ("radllm: {modality: XA}", "modality 'XA'"),
        ("radllm: {intensity: bright}", "intensity 'bright'"),
        ("radllm: {dimension: 4}", "dimension '4'"),
    ],
)
def test_bad_settings(tmp_path, text, sentence):
    own = tmp_path / "params.yaml"
    own.write_text(text)
    with pytest.raises(RadllmError, match=sentence):
        load_settings(own)


def test_settings_that_do_not_exist_name_the_presets():
    with pytest.raises(RadllmError, match=", ".join(preset_names())):
        load_settings("mamography")


def test_a_preset_for_another_dimension_is_refused():
    with pytest.raises(RadllmError, match="for 3D images and this image is 2D"):
        extract(lesion_2d(), "ct")


def test_settings_that_yield_nothing_are_an_error(tmp_path):
    own = tmp_path / "params.yaml"
    own.write_text("imageType: {Original: {}}\nfeatureClass: {shape: []}\n")
    with pytest.raises(RadllmError, match="no feature of a 2D image"):
        extract(lesion_2d(), own)


def baseline_cases() -> list[tuple[str, str]]:
    if not BASELINES.is_dir():
        return []
    cases = []
    for family in CLASSES:
        with (BASELINES / f"baseline_{family}.csv").open() as file:
            heading = next(csv.reader(file))
        cases += [(family, case) for case in heading if case.split("_")[0] in ("brain1", "breast1")]
    return cases


# The slice that PyRadiomics' test of 2D shape uses, of each test image.
SLICES = {"brain1": 16, "breast1": 9}
# Written by PyRadiomics 2.0; version 3 triangulates this mesh otherwise and gives these itself (checked below).
OTHER_MESH = {
    ("shape", "brain1"): {
        "original_shape_MeshVolume",
        "original_shape_SurfaceArea",
        "original_shape_SurfaceVolumeRatio",
        "original_shape_Sphericity",
    }
}


@pytest.mark.skipif(not BASELINES.is_dir(), reason="needs PyRadiomics' own test images in ../shared/data/pyradiomics")
@pytest.mark.parametrize(("family", "case"), baseline_cases())
def test_pyradiomics_own_baseline(family, case):
    with (BASELINES / f"baseline_{family}.csv").open() as file:
        rows = {row["featureName"]: row[case] for row in csv.DictReader(file)}
    settings = ast.literal_eval(rows["diagnostics_Configuration_Settings"])
    settings = {key: value for key, value in settings.items() if key not in OLD_SETTINGS and value is not None}
    parameters = {"imageType": {"Original": {}}, "featureClass": {family: None}, "setting": settings}
    subject = case.split("_")[0]
    lesion = Lesion.from_files(BASELINES / f"{subject}_image.nrrd", BASELINES / f"{subject}_label.nrrd", label=1)
    if family == "shape2D":
        z = SLICES[subject]
        lesion = Lesion.from_images(lesion.image[:, :, z : z + 1], lesion.mask[:, :, z : z + 1])
    values = extract(lesion, Settings.from_dict(parameters)).values
    expected = {name: float(value) for name, value in rows.items() if not name.startswith("diagnostics_")}
    assert len(expected) > 4
    for name in OTHER_MESH.get((family, case), ()):
        assert values[name] == pytest.approx(expected.pop(name), rel=1e-3)
    assert {name: values[name] for name in expected} == pytest.approx(expected, rel=1e-6)


@pytest.mark.skipif(not BASELINES.is_dir(), reason="needs PyRadiomics' own test images in ../shared/data/pyradiomics")
def test_the_mesh_is_the_one_that_pyradiomics_itself_makes_now():
    from radiomics.featureextractor import RadiomicsFeatureExtractor

    files = [BASELINES / f"brain1_{kind}.nrrd" for kind in ("image", "label")]
    parameters = {"imageType": {"Original": {}}, "featureClass": {"shape": None}, "setting": {"label": 1}}
    stock = RadiomicsFeatureExtractor(parameters).execute(*map(str, files))
    ours = extract(Lesion.from_files(*files, label=1), Settings.from_dict(parameters)).values
    assert ours == pytest.approx({name: float(stock[name]) for name in ours}, rel=1e-12)


def test_how_whole_numbers_are_stored_does_not_matter():
    lesion = lesion_3d()
    whole = sitk.Cast(lesion.image, sitk.sitkInt16)
    settings = Settings.from_dict(load_settings("ct").to_dict())
    stored = [
        extract(Lesion.from_images(image, lesion.mask), settings).values
        for image in (whole, sitk.Cast(whole, sitk.sitkFloat32))
    ]
    assert stored[0] == stored[1]
