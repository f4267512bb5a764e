"""Classifiers that leave inner folds little to choose: what is chosen has tests of its own (classical, fusion)."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import replace

import pytest

from radllm_backend.learning import classical


def lean_classifiers() -> Iterator[None]:
    """One setting a classifier and small forests, until the generator goes on."""
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(classical, "COUNTS", (3,))
        for recipes in (classical.CLASSICAL, classical.FUSIBLE):
            for name, recipe in recipes.items():
                patch.setitem(recipes, name, with_one_setting(recipe))
        yield


def with_one_setting(recipe: classical.Recipe) -> classical.Recipe:
    """Also with 10 trees, where it has trees."""

    def classifier(seed: int = 0) -> object:
        made = recipe.classifier(seed)
        return made.set_params(n_estimators=10) if hasattr(made, "n_estimators") else made

    grid = {name: values[len(values) // 2 :][:1] for name, values in recipe.grid.items()}
    return replace(recipe, classifier=classifier, grid=grid, components=(4,), emphases=(1.0,))
