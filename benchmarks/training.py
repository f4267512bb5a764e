"""One epoch of an adapter on prompts of breast ultrasound, beside the Trainer of transformers, set up alike."""

from __future__ import annotations

import io
import math
import time
import warnings
from collections.abc import Iterator
from contextlib import redirect_stdout
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np

from benchmarks.comparison import Comparison, Tell, compare
from benchmarks.scoring import MODEL, different_lesions
from radllm_backend.features.cohort import Lesions
from radllm_backend.language.backbone import quiet_transformers
from radllm_backend.language.base_models import BaseModelFolder, locate, stay_offline
from radllm_backend.learning.fit import fit, fit_writer, learning_rate_factor, shuffled
from radllm_backend.learning.options import TrainingOptions
from radllm_backend.models.bundle import ModelCard
from radllm_backend.models.model import Model

LESIONS = 64
_OPTIONS = TrainingOptions(style="findings", epochs=1, folds=0)
_WANTED = 2.0


def comparisons(runs: int, work: Path, tell: Tell) -> Iterator[Comparison]:
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
        ("the Trainer of transformers, an adapter of peft, all settings as ours, padded to the longest", usual.train),
        ours,
        runs=runs,
        wanted=_WANTED,
        clock=time.process_time,
        note="both in fp32, but ours in bf16 on a processor with AMX; loading the base model counts in both",
    )


def drawn_lesions(card: ModelCard, count: int) -> Lesions:
    """Lesions with the features of a model, each of its own patient, whose labels hang on the first feature."""
    names = tuple(row.feature for row in card.features)
    values = np.array([[lesion.values[name] for name in names] for _, lesion in different_lesions(card, count)])
    labels = (values[:, 0] > np.median(values[:, 0])).astype(int)
    return Lesions(names, values, labels, np.array([f"patient {number}" for number in range(count)]))


@dataclass(frozen=True)
class Usual:
    """As the manuals of transformers and peft show it, with our settings: start, order, loss, learning rate, seed."""

    base: BaseModelFolder
    lesions: Lesions
    modality: str
    work: Path
    options: TrainingOptions = _OPTIONS

    def train(self) -> Any:
        """The Trainer, when it is done."""
        from transformers import Trainer

        class Ordered(Trainer):
            def _get_train_sampler(self, train_dataset: Any = None) -> Any:
                return order

        stay_offline()
        with warnings.catch_warnings(), quiet_transformers(), redirect_stdout(io.StringIO()):
            warnings.simplefilter("ignore")
            parts = self._parts()
            order = _Order(len(parts["train_dataset"]), self.options.seed)
            trainer = Ordered(**parts)
            trainer.train()
        return trainer

    def _parts(self) -> dict[str, Any]:
        import torch
        from transformers import AutoTokenizer, DataCollatorWithPadding

        tokenizer = AutoTokenizer.from_pretrained(self.base.folder)
        rows = self._rows(tokenizer)
        model = self._model(tokenizer.pad_token_id)
        trained = [parameter for parameter in model.parameters() if parameter.requires_grad]
        optimizer = torch.optim.AdamW(trained, lr=self.options.learning_rate, weight_decay=self.options.weight_decay)
        steps = math.ceil(len(rows) / self.options.batch_size) * self.options.epochs
        rate = partial(learning_rate_factor, steps=steps, warmup=self.options.warmup)
        return {
            "model": model,
            "args": self._arguments(),
            "train_dataset": rows,
            "data_collator": DataCollatorWithPadding(tokenizer),
            "compute_loss_func": self._loss(),
            "optimizers": (optimizer, torch.optim.lr_scheduler.LambdaLR(optimizer, rate)),
        }

    def _rows(self, tokenizer: Any) -> list[dict[str, Any]]:
        """The different prompts, with how many benign and malignant lesions they are of."""
        prompts = fit_writer(self.lesions, self.modality, self.options).write(self.lesions)
        counts = {prompt: [0, 0] for prompt in prompts}
        for prompt, label in zip(prompts, self.lesions.labels.tolist(), strict=True):
            counts[prompt][label] += 1
        return [{**tokenizer(prompt), "labels": both} for prompt, both in counts.items()]

    def _model(self, filler: int) -> Any:
        import torch
        from peft import LoraConfig, get_peft_model
        from transformers import AutoModelForSequenceClassification

        model: Any = AutoModelForSequenceClassification.from_pretrained(
            self.base.folder, num_labels=1, dtype=torch.float32, pad_token_id=filler
        )
        model.score = torch.nn.Linear(model.config.hidden_size, 1)
        for parameter in model.score.parameters():
            torch.nn.init.zeros_(parameter)
        adapter = LoraConfig(
            r=self.options.rank, lora_alpha=self.options.alpha, target_modules="all-linear", task_type="SEQ_CLS"
        )
        torch.manual_seed(self.options.seed)
        return get_peft_model(model, adapter)

    def _loss(self) -> Any:
        """Cross-entropy in which both classes weigh alike, the mean of a batch's lesions."""
        import torch
        from torch.nn import functional

        weights = torch.tensor(len(self.lesions) / (2 * np.bincount(self.lesions.labels)), dtype=torch.float32)

        def loss(outputs: Any, labels: torch.Tensor, **_: Any) -> torch.Tensor:
            logits, weighted = outputs.logits[:, 0], labels * weights
            malignant = functional.logsigmoid(logits) * weighted[:, 1]
            benign = functional.logsigmoid(-logits) * weighted[:, 0]
            return -(malignant + benign).sum() / labels.sum()

        return loss

    def _arguments(self) -> Any:
        from transformers import TrainingArguments

        return TrainingArguments(
            output_dir=str(self.work / "trainer"),
            per_device_train_batch_size=self.options.batch_size,
            num_train_epochs=self.options.epochs,
            seed=self.options.seed,
            save_strategy="no",
            report_to=[],
            disable_tqdm=True,
            use_cpu=True,
        )


class _Order:
    """The order in which an epoch reads its prompts, another one each time it is asked."""

    def __init__(self, count: int, seed: int) -> None:
        self._count, self._seed, self._epoch = count, seed, 0

    def __len__(self) -> int:
        return self._count

    def __iter__(self) -> Iterator[int]:
        epoch, self._epoch = self._epoch, self._epoch + 1
        return iter(shuffled(np.arange(self._count), self._seed, epoch).tolist())
