"""Matrix products by numpy: on one thread each, and what their bits depend on.

Threads of BLAS wait for each other by keeping their cores busy, and where another program wants the cores too, two
threads take ten times as long as one. So a product has one thread, and several packs are read side by side instead.
"""

from __future__ import annotations

import contextlib
import os
import threading
from collections.abc import Iterator
from functools import cache

import numpy as np
from threadpoolctl import ThreadpoolController

_PERIODS = (1, 4, 8, 12, 16, 24, 48)
_LENGTHS = (16, 24, 36, 48, 96, 144, 240, 336, 480, 960)
"""Rows of the products that are compared, where they are a multiple of the period."""
_SHAPES = ((576, 192), (1536, 96), (100, 40))
"""(in, out) of the weights that are compared."""


class _OneThread:
    """Holds BLAS at one thread as long as anybody is inside; several may be, on threads of their own."""

    def __init__(self) -> None:
        self._lock = threading.Lock()
        self._inside = 0
        self._limit = contextlib.ExitStack()

    @contextlib.contextmanager
    def __call__(self) -> Iterator[None]:
        with self._lock:
            if not self._inside:
                self._limit.enter_context(_controller().limit(limits=1, user_api="blas"))
            self._inside += 1
        try:
            yield
        finally:
            with self._lock:
                self._inside -= 1
                if not self._inside:
                    self._limit.close()


one_thread = _OneThread()
"""A context in which each matrix product of this process has one thread."""


@cache
def _controller() -> ThreadpoolController:
    return ThreadpoolController()


def cores() -> int:
    """How many packs are read side by side: the cores that this process may use, or fewer where it was told so."""
    told = [os.environ.get(name, "") for name in ("OMP_NUM_THREADS", "OPENBLAS_NUM_THREADS", "MKL_NUM_THREADS")]
    limits = [int(text) for text in told if text.isdecimal() and int(text)]
    has_affinity = hasattr(os, "sched_getaffinity")
    available = len(os.sched_getaffinity(0)) if has_affinity else os.cpu_count() or 1
    return min([available, *limits])


@cache
def row_period() -> int:
    """After how many rows of a matrix product the bits repeat: rows that far apart are computed alike.

    A product is computed in tiles, and the last bits of a row depend on its place in the tile: on the OpenBLAS of
    numpy's wheels for x86 processors with AVX2 they repeat every 12 rows. Measured, for other processors have others;
    0 where nothing repeats.
    """
    with one_thread():
        return next((period for period in _PERIODS if all(_repeats(period, *shape) for shape in _SHAPES)), 0)


def _repeats(period: int, inputs: int, outputs: int) -> bool:
    random = np.random.default_rng(0)
    weight = random.standard_normal((outputs, inputs)).astype(np.float32)
    row = random.standard_normal((1, inputs)).astype(np.float32)
    expected = None
    for length in (one for one in _LENGTHS if one % period == 0):
        tiles = (np.repeat(row, length, axis=0) @ weight.T).reshape(length // period, period, outputs)
        expected = tiles[0] if expected is None else expected
        if not np.array_equal(tiles, np.broadcast_to(expected, tiles.shape)):
            return False
    return True
