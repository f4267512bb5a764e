"""The ways that scoring is compared with: the same hidden states as ours, in batches too."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest

pytest.importorskip("peft")

from benchmarks.scoring import usual_ways
from radllm_backend.language.base_models import locate
from radllm_backend.language.torch_reader import PromptReader

PROMPTS = [f"The 'Sphericity' feature is measured at {number}{'.5' * (number % 3)}." for number in range(20)]


def test_every_way_gives_our_hidden_states(tiny_base: Path, fresh_cache: Path) -> None:
    ours = PromptReader(locate(tiny_base)).embed(PROMPTS)["last"].numpy()
    ways = list(usual_ways(tiny_base))
    assert len(ways) == 3
    for called, _, way in ways:
        np.testing.assert_allclose(way(PROMPTS), ours, atol=1e-4, err_msg=called)
