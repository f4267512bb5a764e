"""How many generated cases a slow test tries: RADLLM_CASES=10 makes it ten times as many, others each time."""

from __future__ import annotations

import os

from hypothesis import HealthCheck, Phase, settings

FACTOR = int(os.environ.get("RADLLM_CASES", "1"))
"""How many times as many generated cases as usual, which are then others each time."""


def cases(count: int) -> settings:
    """So many, the same each time unless RADLLM_CASES asks for more."""
    slow = [HealthCheck.too_slow, HealthCheck.function_scoped_fixture, HealthCheck.data_too_large]
    return settings(
        max_examples=count * FACTOR,
        derandomize=FACTOR == 1,
        phases=[Phase.generate],  # to shrink a case would take minutes
        deadline=None,
        suppress_health_check=slow,
    )
