"""The codes of a DICOM report: public where the definition is the same, verified against the standard's own list."""

from __future__ import annotations

import pytest
from pydicom.sr._concepts_dict import concepts

from radllm_backend.features.names import FAMILIES
from radllm_backend.reports.dicom_codes import IBSI, PRIVATE_SCHEME, feature_code, private_code, unit_of

FEATURES = [f"original_{family}_{name}" for family, names in FAMILIES.items() for name in names]


def test_public_codes_are_those_of_the_standard() -> None:
    standard = {code: meaning for known in concepts["IBSI"].values() for code, (meaning, _) in known.items()}
    ours = {code: meaning for table in IBSI.values() for code, meaning in table.values()}
    assert len(ours) == sum(map(len, IBSI.values()))
    for family, table in IBSI.items():
        assert set(table) <= set(FAMILIES[family])
        for name, (code, meaning) in table.items():
            # PS3.16 leaves out the statistics of undiscretised grey values: those are the IBSI manual's alone.
            alone = family == "firstorder" and name not in ("Entropy", "Uniformity")
            assert standard.get(code) == (None if alone else meaning), name
    snomed = {(code, meaning) for known in concepts["SCT"].values() for code, (meaning, _) in known.items()}
    for name in ("MajorAxisLength", "MeshSurface", "MinorAxisLength", "Perimeter"):
        code = feature_code(f"original_shape2D_{name}")
        assert (code.value, code.meaning) in snomed


@pytest.mark.parametrize(
    ("feature", "code"),
    [
        ("original_glcm_Idn", "NDRX"),
        ("original_glcm_Idm", "WF0Z"),
        ("original_glcm_Idmn", "1QCO"),
        ("original_glszm_LowGrayLevelZoneEmphasis", "XMSY"),
        ("original_firstorder_Mean", "Q4LE"),
        ("original_gldm_LargeDependenceEmphasis", "IMOQ"),
    ],
)
def test_codes_that_are_easily_mixed_up(feature: str, code: str) -> None:
    assert (feature_code(feature).scheme_designator, feature_code(feature).value) == ("IBSI", code)


def test_what_has_no_public_code_has_one_of_ours() -> None:
    own = {feature for feature in FEATURES if feature_code(feature).scheme_designator == PRIVATE_SCHEME}
    names = {feature.removeprefix("original_") for feature in own}
    assert names == {
        "shape2D_Elongation", "shape2D_MaximumDiameter", "shape2D_PerimeterSurfaceRatio", "shape2D_PixelSurface",
        "shape2D_Sphericity", "shape_Maximum2DDiameterColumn", "shape_Maximum2DDiameterRow",
        "shape_Maximum2DDiameterSlice", "firstorder_Energy", "firstorder_Kurtosis", "firstorder_RootMeanSquared",
        "firstorder_TotalEnergy", "glcm_MCC",
    }  # fmt: skip
    assert feature_code("wavelet-HL_glcm_Contrast").scheme_designator == PRIVATE_SCHEME
    codes = [feature_code(feature) for feature in FEATURES]
    assert len({(code.scheme_designator, code.value) for code in codes}) == len(FEATURES)
    assert all(len(code.value) <= 16 and len(code.meaning) <= 64 for code in codes)
    assert len(private_code("x" * 300).meaning) == 64


@pytest.mark.parametrize(
    ("feature", "known", "unknown"),
    [
        ("original_shape2D_Perimeter", "mm", "{pixels}"),
        ("original_shape2D_MaximumDiameter", "mm", "{pixels}"),
        ("original_shape2D_MeshSurface", "mm2", "{pixels}"),
        ("original_shape2D_PerimeterSurfaceRatio", "/mm", "1"),
        ("original_shape2D_Elongation", "1", "1"),
        ("original_shape_SurfaceArea", "mm2", "{pixels}"),
        ("original_shape_VoxelVolume", "mm3", "{pixels}"),
        ("original_glcm_Contrast", "1", "1"),
        ("original_glrlm_RunLengthNonUniformity", "1", "1"),
    ],
)
def test_units(feature: str, known: str, unknown: str) -> None:
    assert (unit_of(feature, True).value, unit_of(feature, False).value) == (known, unknown)
