"""A pytest plugin for `python -m Testing.mutation`: the tests of a mutant, the quick ones first, until one fails."""

from __future__ import annotations

import json
from pathlib import Path

import pytest
from hypothesis import Phase, settings

# The same examples for every mutant, and no time spent on a smaller one: that a test fails is all that is asked.
settings.register_profile(
    "mutation",
    max_examples=30,
    derandomize=True,
    database=None,
    deadline=None,
    phases=[Phase.explicit, Phase.generate],
)
settings.load_profile("mutation")

SLOW = {
    "tiny_model",
    "self_contained_model",
    "phantom_table",
    "volume_model",
    "outcomes",
    "card",
    "cohort",
}
"""Fixtures that train, for longer than a mutant is worth."""


@pytest.hookimpl(tryfirst=True)
def pytest_collection_modifyitems(config: pytest.Config, items: list[pytest.Item]) -> None:
    """Leave out what trains a model, and sort the rest by how long each test took when all were run."""
    slow = [item for item in items if SLOW & set(getattr(item, "fixturenames", ()))]
    config.hook.pytest_deselected(items=slow)
    file = Path("mutmut-stats.json")
    seconds = json.loads(file.read_text(encoding="utf-8"))["duration_by_test"] if file.exists() else {}
    items[:] = sorted((item for item in items if item not in slow), key=lambda item: seconds.get(item.nodeid, 0))
