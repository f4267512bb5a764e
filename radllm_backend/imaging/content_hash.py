"""The hash of an image's content, by which a report names what was measured: the same however it is stored."""

from __future__ import annotations

import hashlib
from collections.abc import Sequence
from typing import Any

import SimpleITK as sitk
from numpy.typing import NDArray

_BLOCK = 2**16  # values that are converted at a time: they stay in the processor's cache
_MOST_KNOWN = 1000
_known_sha256: dict[tuple[str, tuple[int, ...], str], str] = {}
"""Content hashes by data type, size and hash of the stored values: each lesion of an image asks for the same one."""


def content_sha256(pixels: sitk.Image, dtype: str) -> str:
    """Hash of an image's size and values as `dtype`, in which whole numbers and floats of the same value are alike.

    Of whole numbers it is remembered, by the hash of the stored values, which are fewer bytes.
    """
    values, size = sitk.GetArrayViewFromImage(pixels), pixels.GetSize()
    if values.dtype.kind == "f" or values.dtype == dtype:
        return _converted_sha256(values, size, dtype)
    stored = values.dtype.str, size, hashlib.sha256(values.data).hexdigest()
    known = _known_sha256.get(stored)
    if known is None:
        known = _converted_sha256(values, size, dtype)
        if len(_known_sha256) >= _MOST_KNOWN:
            _known_sha256.clear()
        _known_sha256[stored] = known
    return known


def _converted_sha256(values: NDArray[Any], size: Sequence[int], dtype: str) -> str:
    digest = hashlib.sha256(f"size {size}\n".encode())
    flat = values.reshape(-1)
    for start in range(0, flat.size, _BLOCK):
        block = flat[start : start + _BLOCK].astype(dtype, copy=False)
        if values.dtype.kind == "f":
            block = block + block.dtype.type(0)  # turns -0 into 0, which whole numbers do not tell apart
        digest.update(block.data)
    return digest.hexdigest()
