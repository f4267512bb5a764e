"""The models of the comparison: classical baselines, the language model frozen and adapted, fusions, and ablations.

Each sees the training lesions of a fold only: selection, scaling, calibration, threshold, fusion and hyperparameters.
"""

from __future__ import annotations

from collections.abc import Callable, Collection
from functools import partial
from typing import get_args

from radllm_backend.errors import RadllmError
from radllm_backend.learning import learned
from radllm_backend.learning.classical import AVERAGED, CLASSICAL, fit_classical
from radllm_backend.learning.learned import Learned
from radllm_backend.learning.methods import FROZEN, LORA, METHODS
from radllm_backend.learning.options import Family
from radllm_backend.learning.study import ComparedModel, Fold, Verdict

SAME_FEATURES = "logistic regression, the same features"


def compared_models(
    language: bool = True,
    trained: bool = True,
    ablations: bool = False,
    families: Collection[str] = (),
    costly: bool = True,
) -> list[ComparedModel]:
    """The models of the comparison, cheapest first.

    Args:
        language: also those that read prompts with a frozen base model.
        trained: also those that train an adapter.
        ablations: also the language models with one thing changed.
        costly: also the ablations that train once more, or read every feature.
        families: beside the classical models only those of these families; all where it is empty.

    Raises:
        RadllmError: an unknown family.
    """
    unknown = sorted(set(families) - set(get_args(Family)))
    if unknown:
        raise RadllmError(f"There is no family of models '{unknown[0][:40]}': use {', '.join(get_args(Family))}.")
    chosen = [one for one in _all_models(language, trained, ablations) if costly or not one.costly]
    return [one for one in chosen if not families or one.family in {"classical", *families}]


def _all_models(language: bool, trained: bool, ablations: bool) -> list[ComparedModel]:
    field_of_models = [classical(name, select) for name in CLASSICAL for select in (False, True)]
    if language:
        field_of_models += [of_method(name) for name, method in METHODS.items() if not method.adapter]
    if language and trained:
        field_of_models += [of_method(name) for name, method in METHODS.items() if method.adapter]
    if language and ablations:
        field_of_models += [one for one in _ablations() if trained or not one.trained]
    return field_of_models


def of_method(name: str) -> ComparedModel:
    """One of `methods.METHODS` as a model of the comparison."""
    method = METHODS[name]
    return _compared(method.title, method.family, method.learn, trained=method.adapter)


def classical(name: str, select: bool) -> ComparedModel:
    """One of `classical.CLASSICAL` on all features, or on those it selects."""
    which = "selected" if select else "all"
    return ComparedModel(f"{name}, {which} features", "classical", partial(_classical, name=name, select=select))


def same_features(averaged: bool = False) -> ComparedModel:
    """Logistic regression on what the prompt says: what the language model adds is its difference from this.

    Args:
        averaged: over penalties, as the fusion is whose counterpart this then is.
    """
    name = f"{AVERAGED}, the same features" if averaged else SAME_FEATURES
    return _compared(name, "classical", partial(learned.regression, averaged=averaged))


def _ablations() -> list[ComparedModel]:
    changes: list[tuple[str, dict[str, str]]] = [
        ("generic feature names", {"style": "generic"}),
        ("findings sentences", {"style": "findings"}),
        ("no selection", {"selection": "none"}),
    ]
    # Every feature in the prompt makes it ten times as long: reading takes ten times as long, and training is left out.
    frozen = []
    for name, change in changes:
        long = "selection" in change
        learn = partial(learned.frozen, change=change)
        frozen.append(_compared(f"{FROZEN}: {name}", "ablation", learn, trained=long, costly=long))
    lora = [
        _compared(f"{LORA}: {name}", "ablation", partial(learned.lora, change=change), trained=True, costly=True)
        for name, change in changes[:2]
    ]
    shuffled = "shuffled order at test time"
    return [
        *frozen,
        _compared(f"{FROZEN}: {shuffled}", "ablation", partial(learned.frozen, shuffled=True)),
        _compared(f"{LORA}: head only", "ablation", learned.head_only),
        *lora,
        _compared(f"{LORA}: {shuffled}", "ablation", partial(learned.lora, shuffled=True), trained=True),
    ]


def _compared(
    name: str, family: Family, learn: Callable[[Fold], Learned], trained: bool = False, costly: bool = False
) -> ComparedModel:
    def judge(fold: Fold) -> Verdict:
        return learn(fold).verdict(fold)

    return ComparedModel(name, family, judge, trained, costly)


def _classical(fold: Fold, name: str, select: bool) -> Verdict:
    fitted = fit_classical(name, fold.inside, select=select, inner_folds=fold.inner_folds, seed=fold.seed)
    return Verdict(
        fitted.score(fold.outside),
        fitted.probabilities(fold.outside),
        fitted.threshold,
        fitted.selected if select else (),
        fitted.chosen,
    )
