"""Weights mapped from their files: the same numbers as the safetensors library reads, and nothing unsound."""

from __future__ import annotations

import json
from pathlib import Path

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from safetensors.numpy import save_file

from radllm_backend.errors import RadllmError
from radllm_backend.language.weights import MappedWeights


def bfloat16(values: np.ndarray) -> np.ndarray:
    return (values.view(np.uint32) >> 16).astype(np.uint16)


def written(folder: Path, entries: dict[str, object], data: bytes, spaces: int = 0) -> Path:
    header = json.dumps(entries).encode() + b" " * spaces
    (folder / "model.safetensors").write_bytes(len(header).to_bytes(8, "little") + header + data)
    return folder


@given(st.lists(st.floats(width=16, allow_nan=False, allow_infinity=False), min_size=1, max_size=9), st.integers(0, 7))
@settings(deadline=None)
def test_numbers_in_32_and_16_bits_wherever_they_lie(tmp_path_factory, values, spaces):
    numbers = np.array(values, dtype=np.float32)
    count = len(numbers)
    entries = {
        "model.b": {"dtype": "F32", "shape": [count], "data_offsets": [0, 4 * count]},
        "c": {"dtype": "F16", "shape": [count], "data_offsets": [4 * count, 6 * count]},
    }
    data = numbers.tobytes() + numbers.astype(np.float16).tobytes()
    weights = MappedWeights(written(tmp_path_factory.mktemp("weights"), entries, data, spaces))
    for name in ("b", "c"):
        assert np.array_equal(weights[name], numbers)
        assert (weights[name].dtype, weights[name].flags.aligned) == (np.float32, True)


def test_integers_are_refused(tmp_path):
    save_file({"x": np.zeros(3, np.uint8)}, tmp_path / "model.safetensors")
    with pytest.raises(RadllmError, match="weights in the format U8: save them in 16 or 32 bits"):
        MappedWeights(tmp_path)


def test_bf16_and_an_odd_address(tmp_path):
    numbers = np.array([1.5, -2.0, 0.15625], dtype=np.float32)
    entries = {
        "x": {"dtype": "F16", "shape": [1], "data_offsets": [0, 2]},
        "y": {"dtype": "BF16", "shape": [3], "data_offsets": [2, 8]},
        "z": {"dtype": "F32", "shape": [3, 1], "data_offsets": [8, 20]},
    }
    data = np.float16(2).tobytes() + bfloat16(numbers).tobytes() + numbers.tobytes()
    weights = MappedWeights(written(tmp_path, entries, data))
    assert np.array_equal(weights["y"], numbers)
    assert np.array_equal(weights["z"], numbers[:, None])
    assert weights["z"].flags.aligned
    assert list(weights) == ["x", "y", "z"]


def test_fp32_is_mapped_and_not_loaded(tmp_path):
    save_file({"x": np.arange(4.0, dtype=np.float32)}, tmp_path / "model.safetensors")
    found = MappedWeights(tmp_path)["x"]
    assert not found.flags.owndata
    assert not found.flags.writeable


@pytest.mark.parametrize(
    "entry",
    [
        {"dtype": "F32", "shape": [2], "data_offsets": [0, 4]},
        {"dtype": "F32", "shape": ["two"], "data_offsets": [0, 8]},
        {"dtype": "F32", "shape": [1]},
        {"dtype": "F32", "shape": [-1], "data_offsets": [0, 4]},
        {"dtype": "F32", "shape": [2], "data_offsets": [0, 8]},  # the file ends before it
        {"dtype": "F32", "shape": [1], "data_offsets": [-4, 0]},
        {"dtype": "F32", "shape": [1], "data_offsets": [4, 8]},
        "nothing",
    ],
)
def test_a_header_that_does_not_fit_is_one_sentence(tmp_path, entry):
    with pytest.raises(RadllmError, match="is not a sound safetensors file"):
        MappedWeights(written(tmp_path, {"x": entry}, bytes(4)))


def test_a_missing_tensor_and_one_of_another_shape(tmp_path):
    save_file({"x": np.zeros((2, 3), np.float32)}, tmp_path / "model.safetensors")
    weights = MappedWeights(tmp_path)
    with pytest.raises(RadllmError, match="lack y"):
        weights["y"]
    with pytest.raises(RadllmError, match=r"x is 2 x 3 and not 3 x 2"):
        weights.shaped("x", 3, 2)


@pytest.mark.parametrize("length", [0, 5, 8, 40, -1])
def test_a_file_that_is_cut_off_is_one_sentence(tmp_path, length):
    path = tmp_path / "model.safetensors"
    save_file({"x": np.zeros((2, 3), np.float32)}, path)
    path.write_bytes(path.read_bytes()[:length])
    with pytest.raises(RadllmError, match=r"(is not a sound safetensors file|cannot be read).*\.$"):
        MappedWeights(tmp_path)
