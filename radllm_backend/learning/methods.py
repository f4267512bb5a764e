"""The methods that turn prompts into a score: each is an entry of `METHODS`, and registered by being there.

The command line, the comparison of models, the cards and the tables take from the entry what they need. What a method
does stands in `learned`, which is imported when a method is used: the help of a command needs the names, and no torch.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from functools import partial
from typing import TYPE_CHECKING

from radllm_backend.errors import RadllmError
from radllm_backend.learning.options import Family

if TYPE_CHECKING:
    from radllm_backend.learning.learned import Learned
    from radllm_backend.learning.study import Fold

LORA = "LoRA head"
FROZEN = "frozen language model, logistic regression"
WEIGHTED = "fusion, weighted mean of probabilities"
CONCATENATED = "fusion, concatenated"


@dataclass(frozen=True)
class TrainingMethod:
    """A way to learn from prompts."""

    title: str
    """What it is called in tables, reports and cards."""
    family: Family
    learn: Callable[[Fold], Learned]
    adapter: bool = False
    """Whether it trains an adapter, rather than leaving the language model as it is."""
    bundled: bool = True
    """Whether a bundle can hold what it learned; if not, it is a model of the comparison only."""
    averaged: bool = False
    """Whether it averages over penalties: its card then names the baseline that does so too."""


def method_named(name: str) -> TrainingMethod:
    """The method that ``radllm train --method NAME`` makes a bundle of; RadllmError where there is none."""
    if name not in bundled_methods():
        raise RadllmError(f"There is no method '{name[:40]}': use one of {', '.join(bundled_methods())}.")
    return METHODS[name]


def bundled_methods() -> list[str]:
    """The names of the methods whose result a bundle can hold."""
    return [name for name, method in METHODS.items() if method.bundled]


def _lora(fold: Fold) -> Learned:
    from radllm_backend.learning.learned import lora

    return lora(fold)


def _frozen(fold: Fold) -> Learned:
    from radllm_backend.learning.learned import frozen

    return frozen(fold)


def _frozen_ridge(fold: Fold) -> Learned:
    from radllm_backend.learning.classical import RIDGE
    from radllm_backend.learning.learned import frozen

    return frozen(fold, kind=RIDGE)


def _weighted(fold: Fold) -> Learned:
    from radllm_backend.learning.learned import weighted

    return weighted(fold)


def _weighted_lora(fold: Fold) -> Learned:
    from radllm_backend.learning.learned import weighted_lora

    return weighted_lora(fold)


def _concatenated_lora(fold: Fold) -> Learned:
    from radllm_backend.learning.learned import concatenated_lora

    return concatenated_lora(fold, "logistic regression")


def _concatenated(fold: Fold, kind: str) -> Learned:
    from radllm_backend.learning.learned import concatenated

    return concatenated(fold, kind)


def _fusion(kind: str, averaged: bool = False) -> TrainingMethod:
    """A classifier on the features beside the hidden states.

    Args:
        kind: one of `classical.FUSIBLE`.
    """
    return TrainingMethod(f"{CONCATENATED}, {kind}", "fusion", partial(_concatenated, kind=kind), averaged=averaged)


METHODS = {
    "lora": TrainingMethod(LORA, "lora", _lora, adapter=True),
    "fusion": _fusion("logistic regression"),
    "fusion-averaged": _fusion("averaged logistic regression", averaged=True),
    "fusion-lda": _fusion("LDA"),
    "fusion-svm": _fusion("SVM"),
    "fusion-forest": _fusion("random forest"),
    "fusion-boosting": _fusion("gradient boosting"),
    "fusion-lora": TrainingMethod(f"{CONCATENATED}, LoRA", "fusion", _concatenated_lora, adapter=True),
    "weighted": TrainingMethod(WEIGHTED, "fusion", _weighted),
    "frozen": TrainingMethod(FROZEN, "frozen", _frozen),
    "frozen-averaged": TrainingMethod(
        "frozen language model, averaged ridge regression", "frozen", _frozen_ridge, averaged=True
    ),
    "weighted-lora": TrainingMethod(f"{WEIGHTED}, LoRA head", "fusion", _weighted_lora, adapter=True, bundled=False),
}
"""Every method by its name on the command line, in the order of the comparison."""
