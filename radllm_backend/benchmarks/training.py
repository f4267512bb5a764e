"""One epoch of an adapter on prompts of breast ultrasound, beside the Trainer of transformers, set up alike."""

from __future__ import annotations

import io
import time
import warnings
from collections.abc import Iterator
from contextlib import redirect_stdout
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np

from radllm_backend.base_models import BaseModelFolder, locate, stay_offline
from radllm_backend.benchmarks.comparison import Comparison, Progress, compare
from radllm_backend.benchmarks.scoring import MODEL, different_lesions
from radllm_backend.bundle import ModelCard
from radllm_backend.cohort import Lesions
from radllm_backend.fetching import quiet_transformers
from radllm_backend.model import Model
from radllm_backend.training import TrainingOptions, fit, fit_writer

LESIONS = 64
_OPTIONS = TrainingOptions(style="findings", epochs=1, folds=0)
_WANTED = 2.0


def comparisons(runs: int, work: Path, tell: Progress) -> Iterator[Comparison]:
    """One comparison; RadllmError where the base model is not there."""
    card = Model.load(MODEL).card
    base, lesions = locate(card.base.name), drawn_lesions(card, LESIONS)
    usual = Usual(base, lesions, card.modality, work)
    checkpoint = work / "training-checkpoint"

    def ours() -> None:
        fit(lesions, card.modality, base, _OPTIONS, checkpoint, lambda what, done: None, epochs=1)
        checkpoint.unlink()

    tell(f"training for one epoch, {runs + 1} times in both ways, minutes each")
    yield compare(
        "training",
        f"one epoch of {LESIONS} lesions, features of {MODEL}, batches of {_OPTIONS.batch_size}",
        ("the Trainer of transformers, an adapter of peft, fp32, padded to the longest", usual.train),
        ours,
        runs=runs,
        wanted=_WANTED,
        clock=time.process_time,
        note="ours in bf16 where the processor computes in it; loading the base model counts in both",
    )


def drawn_lesions(card: ModelCard, count: int) -> Lesions:
    """Lesions with the features of a model, each of its own patient, whose labels hang on the first feature."""
    names = tuple(row.feature for row in card.features)
    values = np.array([[lesion.values[name] for name in names] for _, lesion in different_lesions(card, count)])
    labels = (values[:, 0] > np.median(values[:, 0])).astype(int)
    return Lesions(names, values, labels, np.array([f"patient {number}" for number in range(count)]))


@dataclass(frozen=True)
class Usual:
    """As the manuals of transformers and peft show it."""

    base: BaseModelFolder
    lesions: Lesions
    modality: str
    work: Path
    options: TrainingOptions = _OPTIONS

    def train(self) -> Any:
        """The Trainer, when it is done."""
        from transformers import Trainer

        stay_offline()
        with warnings.catch_warnings(), quiet_transformers(), redirect_stdout(io.StringIO()):
            warnings.simplefilter("ignore")
            trainer = Trainer(**self._parts())
            trainer.train()
        return trainer

    def _parts(self) -> dict[str, Any]:
        import torch
        from peft import LoraConfig, get_peft_model
        from transformers import (
            AutoModelForSequenceClassification,
            AutoTokenizer,
            DataCollatorWithPadding,
            TrainingArguments,
        )

        tokenizer = AutoTokenizer.from_pretrained(self.base.folder)
        prompts = fit_writer(self.lesions, self.modality, self.options).write(self.lesions)
        labels = self.lesions.labels.tolist()
        rows = [{**tokenizer(prompt), "labels": label} for prompt, label in zip(prompts, labels, strict=True)]
        model: Any = AutoModelForSequenceClassification.from_pretrained(
            self.base.folder, num_labels=2, dtype=torch.float32, pad_token_id=tokenizer.pad_token_id
        )
        adapter = LoraConfig(
            r=self.options.rank, lora_alpha=self.options.alpha, target_modules="all-linear", task_type="SEQ_CLS"
        )
        arguments = TrainingArguments(
            output_dir=str(self.work / "trainer"),
            per_device_train_batch_size=self.options.batch_size,
            num_train_epochs=self.options.epochs,
            learning_rate=self.options.learning_rate,
            lr_scheduler_type="cosine",
            warmup_steps=self.options.warmup,
            weight_decay=self.options.weight_decay,
            seed=self.options.seed,
            save_strategy="no",
            report_to=[],
            disable_tqdm=True,
            use_cpu=True,
        )
        return {
            "model": get_peft_model(model, adapter),
            "args": arguments,
            "train_dataset": rows,
            "data_collator": DataCollatorWithPadding(tokenizer),
        }
