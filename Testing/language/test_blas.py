"""After how many rows a matrix product repeats: what reading prompts together rests on."""

from __future__ import annotations

import numpy as np
import pytest

from radllm_backend.language import blas


@pytest.mark.parametrize("shape", [(576, 576), (576, 192), (1536, 576), (32, 64), (64, 32), (2048, 512), (90, 34)])
def test_rows_a_period_apart_have_the_same_bits(shape):
    period = blas.row_period()
    if not period:
        pytest.skip("Nothing repeats on this processor: each prompt is read alone.")
    inputs, outputs = shape
    random = np.random.default_rng(1)
    weight = random.standard_normal((outputs, inputs)).astype(np.float32)
    row = random.standard_normal((1, inputs)).astype(np.float32)
    expected = None
    with blas.one_thread():
        for length in (48, 96, 240, 528, 1008, 2064):
            rows = np.repeat(row, length, axis=0)
            found = rows @ weight.T
            expected = found[:period] if expected is None else expected
            assert all(np.array_equal(found[start : start + period], expected) for start in range(0, length, period))


def test_what_does_not_repeat_is_found_out(monkeypatch):
    monkeypatch.setattr(blas, "_PERIODS", (1,))
    if blas.row_period() != 1:
        assert blas.row_period.__wrapped__() == 0
