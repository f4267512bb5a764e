"""The ways that scoring is compared with: the same hidden states as ours, in batches too."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest

pytest.importorskip("peft")

from benchmarks.scoring import usual_ways
from radllm_backend.language.base_models import locate
from radllm_backend.language.prompt import Readout
from radllm_backend.language.reader import NumpyReader

PROMPTS = [f"The 'Sphericity' feature is measured at {number}{'.5' * (number % 3)}." for number in range(20)]


@pytest.mark.parametrize("layers", [1, 2])
def test_every_way_gives_our_hidden_states(tiny_base: Path, fresh_cache: Path, layers: int) -> None:
    readout = Readout(layers, "last")
    ours = NumpyReader(locate(tiny_base), layers=layers).embed(PROMPTS, [readout])[readout]
    ways = list(usual_ways(tiny_base, layers))
    assert len(ways) == 3
    for called, _, way in ways:
        np.testing.assert_allclose(way(PROMPTS), ours, atol=1e-4, err_msg=called)
