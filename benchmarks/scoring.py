"""Scoring lesions with the shipped breast ultrasound model, beside the ways that the manual of transformers shows.

The shipped models read a frozen base model, some of them only its first layers. So the baseline of their users is that
base model by transformers, cut off at the same layer, one prompt at a time and in padded batches. An adapter that is
not merged costs more: it stands beside them for those who train one.
"""

from __future__ import annotations

import time
import warnings
from collections.abc import Callable, Iterator, Sequence
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from benchmarks.comparison import Comparison, Tell, compare
from radllm_backend.language.backbone import quiet_transformers
from radllm_backend.language.base_models import locate, stay_offline
from radllm_backend.models.bundle import ModelCard
from radllm_backend.models.model import Model
from radllm_backend.records import Features

MODEL = "breast-us"
PROMPTS = 32
_WANTED, _WANTED_WITHOUT_BF16 = 8.0, 3.0
_RANK, _ALPHA = 16, 32
_TOGETHER = 16
"""Prompts of a padded batch: with more of them transformers is no faster on a CPU."""

States = Callable[[Sequence[str]], NDArray[np.float32]]
"""From prompts to the last token's hidden states, [prompts × hidden size]."""


def comparisons(runs: int, work: Path, tell: Tell) -> Iterator[Comparison]:
    """Three comparisons, of the same different prompts; RadllmError where the base model is not there."""
    import torch

    model = Model.load(MODEL)
    prompts, lesions = zip(*different_lesions(model.card, PROMPTS), strict=True)
    case = f"{PROMPTS} different lesions, {MODEL}, {torch.get_num_threads()} threads"
    ours = model.embed(lesions[:8])
    for called, wanted, usual in usual_ways(locate(model.card.base.name).folder, model.card.layers):
        tell(f"scoring {PROMPTS} prompts, {runs + 1} times as we do and by {called}: minutes each")
        differs = np.abs(ours - usual(prompts[:8])).max()
        yield compare(
            "scoring",
            case,
            (called, partial(usual, prompts)),
            partial(model.predict_many, lesions, explain=False),
            runs=runs,
            clock=time.process_time,
            wanted=wanted,
            note=f"beside {called}, hidden states differ by {differs:.0e} at most",
        )


def different_lesions(card: ModelCard, count: int) -> list[tuple[str, Features]]:
    """Prompts, all different, each with its lesion, whose values are drawn from those of the training lesions.

    Each feature is drawn by itself: the prompts of real lesions have more in common.
    """
    random, template = np.random.default_rng(0), card.template()
    found: dict[str, Features] = {}
    while len(found) < count:
        values = [float(random.choice(row.quantiles)) for row in card.features]
        prompt = template.render(
            [(value - row.mean) / row.deviation for value, row in zip(values, card.features, strict=True)]
        )
        names = [row.feature for row in card.features]
        found.setdefault(prompt, Features(values=dict(zip(names, values, strict=True))))
    return list(found.items())


def usual_ways(base: Path, layers: int | None = None) -> Iterator[tuple[str, float | None, States]]:
    """What each way is called, the ratio that was aimed at, and the way itself; all in fp32.

    Args:
        base: the folder of the base model.
        layers: how many of its layers are read; None for all.
    """
    import torch
    from peft import LoraConfig, get_peft_model
    from transformers import AutoModel, AutoTokenizer

    from radllm_backend.language.torch_reader import computes_bf16

    stay_offline()
    tokenizer = AutoTokenizer.from_pretrained(base, padding_side="right")
    with quiet_transformers():  # it would list the weights of the layers that are left out
        model: Any = AutoModel.from_pretrained(base, **({"num_hidden_layers": layers} if layers else {}))
    model = model.to(torch.float32).eval()
    yield "transformers, the frozen base model, one prompt at a time", None, partial(last_states, model, tokenizer, 1)
    together = partial(last_states, model, tokenizer, _TOGETHER)
    yield f"transformers, the frozen base model, in padded batches of {_TOGETHER}", None, together
    config = LoraConfig(r=_RANK, lora_alpha=_ALPHA, target_modules="all-linear", task_type="FEATURE_EXTRACTION")
    with warnings.catch_warnings():
        warnings.filterwarnings("ignore", "`is_gradient_checkpointing` is deprecated", FutureWarning)  # by peft
        adapted: Any = get_peft_model(model, config).eval()
    wanted = _WANTED if computes_bf16(torch.device("cpu")) else _WANTED_WITHOUT_BF16
    called = "transformers with an unmerged adapter of peft, which no shipped model has, one prompt at a time"
    yield called, wanted, partial(last_states, adapted, tokenizer, 1)


def last_states(model: Any, tokenizer: Any, together: int, prompts: Sequence[str]) -> NDArray[np.float32]:
    """The last token's hidden states, of so many prompts at a time, sorted by length so that little is padding."""
    import torch

    order = sorted(range(len(prompts)), key=lambda row: len(prompts[row]))
    states = np.empty((len(prompts), model.config.hidden_size), dtype=np.float32)
    with torch.no_grad():
        for start in range(0, len(order), together):
            rows = order[start : start + together]
            inputs = tokenizer([prompts[row] for row in rows], return_tensors="pt", padding=together > 1)
            hidden = model(**inputs).last_hidden_state
            ends = inputs["attention_mask"].sum(dim=1) - 1
            states[rows] = hidden[torch.arange(len(rows)), ends].numpy()
    return states
