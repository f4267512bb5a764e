"""Fitting a model to training lesions: selection, scaling, and the LoRA classifier with early stopping and checkpoints.

Everything here sees training lesions only; `study` decides which those are.
"""

from __future__ import annotations

import hashlib
import json
import math
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import torch
from numpy.typing import NDArray
from safetensors import safe_open
from safetensors.torch import save
from sklearn.metrics import log_loss, roc_auc_score
from torch import Tensor

from radllm_backend.errors import RadllmError
from radllm_backend.features.arrays import FloatArray, IntArray
from radllm_backend.features.cohort import Lesions, split_by_patient
from radllm_backend.files import write_atomically
from radllm_backend.language import distributed
from radllm_backend.language.adapters import Adapter, AdapterShape
from radllm_backend.language.base_models import BaseModelFolder
from radllm_backend.language.prompt_writer import PromptWriter
from radllm_backend.language.reader import PromptReader, open_reader
from radllm_backend.language.torch_reader import LoraClassifier, best_device, stored_precision
from radllm_backend.learning.classical import select_by_inner_folds
from radllm_backend.learning.options import TrainingOptions
from radllm_backend.records import Progress

_MICRO_BATCH = 8  # keeps SmolLM2's activations below 2 GB; the gradient is the whole batch's


@dataclass(frozen=True)
class Epoch:
    """How one epoch went."""

    loss: float
    validation_loss: float | None = None
    validation_auc: float | None = None


@dataclass(frozen=True)
class FittedModel:
    """A prompt writer and an adapter, as fitted."""

    writer: PromptWriter
    weights: dict[str, Tensor]
    """Adapter and head in the precision a bundle stores."""
    epochs: tuple[Epoch, ...]
    kept_epoch: int
    """After how many epochs the weights were kept."""

    def reader(self, base: BaseModelFolder, options: TrainingOptions) -> PromptReader:
        """The language model with this adapter, as predictions read it."""
        shape = AdapterShape(options.rank, options.alpha)
        if base.four_bit:  # the adapter is kept beside such weights: the sum would be rounded to 4 bits anew
            classifier = LoraClassifier(base, shape)
            classifier.load_weights(self.weights)
            return classifier.to(best_device())
        return open_reader(base, Adapter({name: tensor.numpy() for name, tensor in self.weights.items()}, shape))


@dataclass(frozen=True)
class Start:
    """A trained adapter that a fit continues from, and the features its model knows."""

    weights: dict[str, Tensor]
    features: tuple[str, ...]

    @property
    def sha256(self) -> str:
        """Of the weights and of the features' names."""
        return hashlib.sha256(save(self.weights) + json.dumps(self.features).encode()).hexdigest()


def fit(
    lesions: Lesions,
    modality: str,
    base: BaseModelFolder,
    options: TrainingOptions,
    checkpoint: Path,
    progress: Progress,
    epochs: int | None = None,
    start: Start | None = None,
) -> FittedModel:
    """Select features, standardise, and train the LoRA classifier.

    Selection and scaling use all these lesions. Whole patients are kept apart to decide when to stop, unless the number
    of epochs is known: then the adapter learns from all lesions too.

    Args:
        checkpoint: a file that keeps the state after each epoch; a killed fit continues from it.
        epochs: how many epochs to train on all lesions; None for early stopping.
        start: the adapter to continue from; None for a fresh one.
    """
    writer = fit_writer(lesions, modality, options, start)
    if epochs is None:
        training, validation = split_by_patient(lesions, options.validation, options.seed)
    else:
        training, validation = np.arange(len(lesions)), np.arange(0)
    classifier = LoraClassifier(base, AdapterShape(options.rank, options.alpha), seed=options.seed)
    if start:
        classifier.load_weights(start.weights)
    if not distributed.sharded():
        classifier.to(best_device())
    origin = [base.identity, start.sha256] if start else [base.identity]
    material = _Material(
        writer.write(lesions),
        lesions.labels,
        training,
        validation,
        (lambda epoch: writer.write_shuffled(lesions, epoch)) if options.shuffle_order else None,
    )
    run = _Run(classifier, material, options, checkpoint, progress, origin)
    run.train(min(epochs or options.epochs, options.epochs))
    return FittedModel(writer, stored_precision(run.best_weights), tuple(run.epochs), run.best() + 1)


def fit_writer(lesions: Lesions, modality: str, options: TrainingOptions, start: Start | None = None) -> PromptWriter:
    """How the language model will read lesions, fitted on training lesions."""
    keep = start.features if start else ()
    count = options.features if options.selection == "mrmr" else None
    if options.selection == "filtered" and lesions.features:
        counts = [options.features // 2 or 1, options.features, 2 * options.features]
        chosen = select_by_inner_folds(lesions, counts, options.seed)
        known = [name for name in keep if name in lesions.features]
        lesions = lesions.with_features(list(dict.fromkeys([*known, *chosen])))
    return PromptWriter.fit(lesions, modality, count=count, style=options.style, keep=keep)


@dataclass(frozen=True)
class _Material:
    """What a run learns from."""

    prompts: list[str]
    labels: IntArray
    training: IntArray
    validation: IntArray
    rewrite: Callable[[int], list[str]] | None
    """The prompts of an epoch, where they change."""


class _Run:
    """One training run: its data, its state after each epoch, and the checkpoint that keeps it."""

    def __init__(
        self,
        classifier: LoraClassifier,
        material: _Material,
        options: TrainingOptions,
        checkpoint: Path,
        progress: Progress,
        origin: list[str],
    ) -> None:
        self.classifier = classifier
        self.options = options
        self.checkpoint = checkpoint
        self.progress = progress
        self.rewrite = material.rewrite
        prompts, labels = material.prompts, material.labels
        training, validation = material.training, material.validation
        self.class_weights = len(training) / (2 * np.bincount(labels[training], minlength=2))
        # Lesions with the same words (descriptors repeat, numbers do not) are read once and weigh as many as they are.
        self.texts = list(dict.fromkeys(prompts))
        where = {text: index for index, text in enumerate(self.texts)}
        reading = np.array([where[prompt] for prompt in prompts])
        self.first_rows = np.unique(reading, return_index=True)[1]
        self.tokens = [classifier.tokenise(text) for text in self.texts]
        self.counts = np.zeros((len(self.texts), 2))
        np.add.at(self.counts, (reading[training], labels[training]), 1)
        self.training = np.unique(reading[training])
        self.validation = reading[validation]
        self.validation_labels = labels[validation]
        self.steps_per_epoch = math.ceil(len(self.training) / options.batch_size)
        self.epochs: list[Epoch] = []
        self.best_weights: dict[str, Tensor] = {}
        content = [options.model_dump(exclude={"folds"}), prompts, labels.tolist(), training.tolist(), *origin]
        self.identity = hashlib.sha256(json.dumps(content).encode()).hexdigest()
        self.model = distributed.joined(classifier)
        self.optimizer = torch.optim.AdamW(
            classifier.trainable(), lr=options.learning_rate, weight_decay=options.weight_decay
        )

    def train(self, epochs: int) -> None:
        """So many epochs at most, or what was left of them; `best_weights` are those of the best one."""
        self._resume()
        while len(self.epochs) < epochs and not self._stale():
            self._epoch()
            self._save()

    def best(self) -> int:
        """Which epoch had the lowest validation loss; the last one where nothing was kept apart."""
        losses = [epoch.validation_loss for epoch in self.epochs if epoch.validation_loss is not None]
        return losses.index(min(losses)) if losses else len(self.epochs) - 1

    def _stale(self) -> bool:
        return bool(self.epochs) and len(self.epochs) - 1 - self.best() >= self.options.patience

    def _epoch(self) -> None:
        number = len(self.epochs)
        losses = []
        if self.rewrite:
            prompts = self.rewrite(number)
            self.tokens = [self.classifier.tokenise(prompts[row]) for row in self.first_rows]
        self.classifier.train()
        for step, rows in enumerate(self._batches(number)):
            self._set_learning_rate(number * self.steps_per_epoch + step)
            losses.append(self._step(rows))
            done = (number + (step + 1) / self.steps_per_epoch) / self.options.epochs
            self.progress(f"epoch {number + 1}/{self.options.epochs}, loss {np.mean(losses):.3f}{self._so_far()}", done)
        weights = self.classifier.weights()
        self.epochs.append(self._validated(float(np.mean(losses)), weights))
        if self.best() == number:
            self.best_weights = weights

    def _so_far(self) -> str:
        auc = self.epochs[-1].validation_auc if self.epochs else None
        return "" if auc is None else f", validation AUC {auc:.3f}"

    def _batches(self, epoch: int) -> Iterator[NDArray[np.int_]]:
        """The training texts in this epoch's order, which depends on seed and epoch alone: a resumed run repeats it."""
        order = shuffled(self.training, self.options.seed, epoch)
        for start in range(0, len(order), self.options.batch_size):
            yield order[start : start + self.options.batch_size]

    def _step(self, rows: NDArray[np.int_]) -> float:
        total = 0.0
        mine, counting = distributed.share(rows)
        self.optimizer.zero_grad()
        for start in range(0, len(mine), _MICRO_BATCH):
            part = slice(start, start + _MICRO_BATCH)
            with distributed.gathering(self.model, start + _MICRO_BATCH >= len(mine)):
                loss = self._loss(mine[part], counting[part]) / float(self.counts[rows].sum())
                (loss * distributed.count()).backward()  # several processes' gradients are averaged, not added
            total += float(loss.detach())
        torch.nn.utils.clip_grad_norm_(self.classifier.trainable(), 1.0)
        self.optimizer.step()
        return float(distributed.summed(np.array(total)))

    def _loss(self, rows: NDArray[np.int_], counting: NDArray[np.bool_]) -> Tensor:
        """Weighted cross-entropy, summed over those of the rows that count."""
        with self.classifier.autocast():
            logits = self.model([self.tokens[row] for row in rows])
        weights = self.counts[rows] * self.class_weights
        return torch.nn.functional.binary_cross_entropy_with_logits(
            logits.float(),
            torch.tensor(weights[:, 1] / weights.sum(axis=1), dtype=torch.float32, device=logits.device),
            weight=torch.tensor(weights.sum(axis=1) * counting, dtype=torch.float32, device=logits.device),
            reduction="sum",
        )

    def _set_learning_rate(self, step: int) -> None:
        factor = learning_rate_factor(step, self.steps_per_epoch * self.options.epochs, self.options.warmup)
        for group in self.optimizer.param_groups:
            group["lr"] = self.options.learning_rate * factor

    def _validated(self, loss: float, weights: dict[str, Tensor]) -> Epoch:
        """The epoch judged by the lesions kept apart, with the adapter in the precision that a bundle stores."""
        if not len(self.validation):
            return Epoch(loss)
        self.classifier.load_weights(stored_precision(weights))
        logits = self._scores([self.texts[index] for index in self.validation])
        self.classifier.load_weights(weights)
        labels = self.validation_labels
        probabilities = 1 / (1 + np.exp(-np.clip(logits, -50, 50)))
        return Epoch(
            loss=loss,
            validation_loss=float(log_loss(labels, probabilities, sample_weight=self.class_weights[labels])),
            validation_auc=float(roc_auc_score(labels, logits)),
        )

    def _scores(self, texts: list[str]) -> FloatArray:
        """The same in every process, so that all stop at the same epoch."""
        if distributed.sharded():  # every process must take part in every pass
            scores = np.array(self.classifier.score(texts))
            return distributed.summed(scores if distributed.is_main() else np.zeros_like(scores))
        scores = np.zeros(len(texts))
        mine = slice(distributed.index(), None, distributed.count())
        scores[mine] = self.classifier.score(texts[mine])
        return distributed.summed(scores)

    def _save(self) -> None:
        tensors = {f"now.{name}": tensor for name, tensor in self.classifier.weights().items()}
        tensors |= {f"best.{name}": tensor for name, tensor in self.best_weights.items()}
        for index, parameter in enumerate(self.classifier.trainable()):
            state = self.optimizer.state[parameter]
            tensors |= {f"optimizer.{index}.{key}": distributed.whole(state[key]).cpu().clone() for key in state}
        metadata = {"identity": self.identity, "epochs": json.dumps([vars(epoch) for epoch in self.epochs])}
        if distributed.is_main():
            write_atomically(self.checkpoint, save(tensors, metadata=metadata))

    def _resume(self) -> None:
        """Continue from the checkpoint, where there is one, in every process alike."""
        self._read_checkpoint()
        if distributed.summed(np.array(len(self.epochs))) != distributed.count() * len(self.epochs):
            raise RadllmError(
                f"Not every process sees the checkpoint {self.checkpoint.name}: give an output that all share."
            )

    def _read_checkpoint(self) -> None:
        """The state of the checkpoint, if it is of this very run; any other is replaced at the next epoch."""
        if not self.checkpoint.is_file():
            return
        try:
            with safe_open(self.checkpoint, framework="pt") as file:
                metadata = file.metadata() or {}
                if metadata.get("identity") != self.identity:
                    return
                tensors = {name: file.get_tensor(name) for name in file.keys()}  # noqa: SIM118 (not a dict)
        except Exception as error:  # safetensors raises its own kinds
            raise RadllmError(f"The checkpoint {self.checkpoint.name} is damaged: delete it to start anew.") from error
        self.epochs = [Epoch(**epoch) for epoch in json.loads(metadata["epochs"])]
        self.classifier.load_weights(_below("now.", tensors))
        self.best_weights = _below("best.", tensors)
        for index, parameter in enumerate(self.classifier.trainable()):
            self.optimizer.state[parameter] = {
                key: value if key == "step" else distributed.placed_like(value, parameter)
                for key, value in _below(f"optimizer.{index}.", tensors).items()
            }


def shuffled(rows: IntArray, seed: int, epoch: int) -> IntArray:
    """The order in which an epoch reads its prompts."""
    return np.random.default_rng([seed, epoch]).permutation(rows)


def learning_rate_factor(step: int, steps: int, warmup: float) -> float:
    """Linear warm-up, then half a cosine down to nothing (Loshchilov and Hutter, ICLR 2017, without restarts).

    Args:
        step: from 0.
        steps: of all epochs.
        warmup: share of the steps in which the learning rate rises.
    """
    rising = max(1, round(warmup * steps))
    if step < rising:
        return (step + 1) / rising
    return 0.5 * (1 + math.cos(math.pi * (step - rising) / max(1, steps - rising)))


def _below(prefix: str, tensors: dict[str, Tensor]) -> dict[str, Tensor]:
    return {name.removeprefix(prefix): tensor for name, tensor in tensors.items() if name.startswith(prefix)}
