"""Scoring lesions with the shipped breast ultrasound model, beside transformers and peft as their manuals show them."""

from __future__ import annotations

import time
import warnings
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from benchmarks.comparison import Comparison, Progress, compare
from radllm_backend.language.base_models import locate, stay_offline
from radllm_backend.models.bundle import ModelCard
from radllm_backend.models.model import Model
from radllm_backend.records import Features

MODEL = "breast-us"
PROMPTS = 256
_WANTED, _WANTED_WITHOUT_BF16 = 8.0, 3.0
_RANK, _ALPHA = 16, 32


def comparisons(runs: int, work: Path, tell: Progress) -> Iterator[Comparison]:
    """One comparison, of different prompts; RadllmError where the base model is not there."""
    import torch

    from radllm_backend.language.torch_reader import computes_bf16

    model = Model.load(MODEL)
    prompts, lesions = zip(*different_lesions(model.card, PROMPTS), strict=True)
    usual = usual_way(locate(model.card.base.name).folder)
    tell(f"scoring {PROMPTS} prompts one at a time and together, {runs + 1} times, minutes each")
    measured = compare(
        "scoring",
        f"{PROMPTS} different lesions, {MODEL}, {torch.get_num_threads()} threads",
        ("transformers with an unmerged adapter of peft, fp32, one prompt at a time", lambda: usual(prompts)),
        lambda: model.predict_many(lesions),
        runs=runs,
        clock=time.process_time,
        wanted=_WANTED if computes_bf16(torch.device("cpu")) else _WANTED_WITHOUT_BF16,
    )
    few = slice(0, 8)
    differs = np.abs(model.embed(lesions[few]) - usual(prompts[few])).max()
    note = f"hidden states differ by {differs:.0e} at most; bf16 and int8 would change calls"
    yield measured.model_copy(update={"note": note})


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


def usual_way(base: Path) -> Callable[[tuple[str, ...]], NDArray[np.float32]]:
    """From prompts to the last token's hidden states [prompts × hidden size].

    Args:
        base: the folder of the base model.
    """
    import torch
    from peft import LoraConfig, get_peft_model
    from transformers import AutoModel, AutoTokenizer

    stay_offline()
    tokenizer = AutoTokenizer.from_pretrained(base)
    config = LoraConfig(r=_RANK, lora_alpha=_ALPHA, target_modules="all-linear", task_type="FEATURE_EXTRACTION")
    with warnings.catch_warnings():
        warnings.filterwarnings("ignore", "`is_gradient_checkpointing` is deprecated", FutureWarning)  # by peft
        model: Any = get_peft_model(AutoModel.from_pretrained(base, dtype=torch.float32), config).eval()

    def states(prompts: tuple[str, ...]) -> NDArray[np.float32]:
        rows = []
        with torch.no_grad():
            for prompt in prompts:
                inputs = tokenizer(prompt, return_tensors="pt")
                rows.append(model(**inputs).last_hidden_state[0, -1])
        return torch.stack(rows).numpy()

    return states
