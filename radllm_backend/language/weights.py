"""The weights of a base model as numpy arrays in fp32: mapped from the files, not loaded, where these have them so."""

from __future__ import annotations

import json
import math
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from radllm_backend.errors import RadllmError
from radllm_backend.features.arrays import Float32Array
from radllm_backend.files import read_json

Weights = Mapping[str, Float32Array]
"""By the names that they have in transformers' ``LlamaModel``: ``layers.0.self_attn.q_proj.weight``."""

_PREFIX = "model."


def _as_it_is(stored: NDArray[Any]) -> Float32Array:
    return stored


def _half(stored: NDArray[Any]) -> Float32Array:
    return stored.astype(np.float32)


def _bfloat16(stored: NDArray[Any]) -> Float32Array:
    """bf16 is the upper half of fp32."""
    return (stored.astype(np.uint32) << 16).view(np.float32)


_FORMATS: dict[str, tuple[str, Callable[[NDArray[Any]], Float32Array]]] = {
    "F32": ("<f4", _as_it_is),
    "F16": ("<f2", _half),
    "BF16": ("<u2", _bfloat16),
}
"""The formats of numbers that safetensors files of language models have."""


class MappedWeights(Mapping[str, Float32Array]):
    """Every tensor of a base model's folder; what nobody asks for is never read from the disk."""

    def __init__(self, folder: Path) -> None:
        """
        Args:
            folder: of a base model that was checked (`base_models.locate`).

        Raises:
            RadllmError: a file cannot be read or is damaged, or has numbers in a format that is not a float's.
        """
        self._folder = folder
        self._tensors: dict[str, Callable[[], Float32Array]] = {}
        for path in weight_files(folder):
            self._tensors.update(_tensors_of(path))

    def __getitem__(self, name: str) -> Float32Array:
        if name not in self._tensors:
            raise RadllmError(f"The weights in {self._folder} lack {name}: fetch the model again, complete.")
        return self._tensors[name]()

    def __iter__(self) -> Any:
        return iter(self._tensors)

    def __len__(self) -> int:
        return len(self._tensors)

    def __contains__(self, name: object) -> bool:
        return name in self._tensors

    def shaped(self, name: str, *shape: int) -> Float32Array:
        """A tensor of a known shape; RadllmError where it is missing or has another."""
        found = self[name]
        if found.shape != shape:
            raise RadllmError(
                f"The weights in {self._folder} do not fit its config.json ({name} is {_times(found.shape)} and not "
                f"{_times(shape)}): fetch the model again."
            )
        return found


def weight_files(folder: Path) -> list[Path]:
    """The safetensors files of a base model's folder: one, or those that its index names; empty where there is none."""
    single, index = folder / "model.safetensors", folder / "model.safetensors.index.json"
    if single.is_file():
        return [single]
    names = read_json(index)["weight_map"].values() if index.is_file() else ()
    return [folder / name for name in sorted(set(names))]


def _tensors_of(path: Path) -> dict[str, Callable[[], Float32Array]]:
    try:
        mapped = np.asarray(np.memmap(path, mode="r", dtype=np.uint8))
    except (OSError, ValueError) as error:
        raise RadllmError(f"{path} cannot be read ({error}): check that it exists and that you may read it.") from error
    length = int.from_bytes(mapped[:8].tobytes(), "little")
    try:
        header = json.loads(mapped[8 : 8 + length].tobytes())
        header.pop("__metadata__", None)
        return {
            name.removeprefix(_PREFIX): _reader(path, mapped[8 + length :], entry) for name, entry in header.items()
        }
    except (ValueError, KeyError, TypeError, AttributeError) as error:
        raise RadllmError(f"{path} is not a sound safetensors file: fetch the model again.") from error


def _reader(path: Path, data: NDArray[np.uint8], entry: Mapping[str, Any]) -> Callable[[], Float32Array]:
    begin, end = entry["data_offsets"]
    shape = tuple(int(length) for length in entry["shape"])
    if entry["dtype"] not in _FORMATS:
        raise RadllmError(f"{path} has weights in the format {str(entry['dtype'])[:20]}: save them in 16 or 32 bits.")
    kind, expand = _FORMATS[entry["dtype"]]
    if not 0 <= begin <= end <= len(data) or end - begin != math.prod(shape) * np.dtype(kind).itemsize:
        raise ValueError("the shape of a tensor does not fit its bytes, or the file is cut off")

    def read() -> Float32Array:
        # A header whose length is odd leaves the numbers where no processor likes them.
        stored = np.require(data[begin:end].view(kind) if begin != end else np.empty(0, kind), requirements="A")
        return expand(stored.reshape(shape))

    return read


def _times(shape: tuple[int, ...]) -> str:
    return " x ".join(map(str, shape))
