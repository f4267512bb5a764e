"""The mesh of a lesion: PyRadiomics' own surface, volume and diameters of any mask."""

from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

pytest.importorskip("radiomics")
from radiomics import cShape

from radllm_backend.features.mesh import mesh_coefficients
from Testing.features.generated_cases import cases


@cases(60)
@given(st.tuples(*[st.integers(1, 9)] * 3), st.floats(0.05, 1), st.integers(0, 99), st.tuples(*[st.floats(0.1, 5)] * 3))
def test_the_mesh_of_any_mask(shape, share, seed, spacing):
    mask = np.pad(np.random.default_rng(seed).random(shape) <= share, 1)
    mask[1, 1, 1] = True
    surface, volume, diameters = cShape.calculate_coefficients(mask, np.array(spacing))
    ours = mesh_coefficients(mask, np.array(spacing))
    assert ours[:2] == pytest.approx((surface, volume), rel=5e-13, abs=1e-13)
    assert [ours[2][axis] for axis in range(4)] == pytest.approx(diameters, rel=5e-13)
