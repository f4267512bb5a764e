"""Whether faster training costs discrimination: our fine-tuning beside the Trainer of transformers, to the end.

    OMP_NUM_THREADS=1 python -m benchmarks.training_auc --seeds 1

Each seed keeps another fifth of the 176 lesions of Resources/TrainingTables/breast-us.csv apart, trains on the others
in both ways with the same settings and prints both AUCs on the lesions kept apart, their difference, and how far their
scores differ. Minutes a seed. Needs the base model (``radllm models pull``).
"""

from __future__ import annotations

import argparse
import tempfile
from pathlib import Path

import numpy as np
import torch
from numpy.typing import NDArray
from sklearn.metrics import roc_auc_score

from benchmarks.training import Usual
from radllm_backend.features.cohort import Lesions, split_by_patient
from radllm_backend.features.table import read_table
from radllm_backend.language.base_models import locate
from radllm_backend.learning.fit import fit, fit_writer
from radllm_backend.learning.options import TrainingOptions

TABLE = Path(__file__).resolve().parents[1] / "Resources" / "TrainingTables" / "breast-us.csv"
BASE, MODALITY = "smollm2-135m-instruct", "US"


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--seeds", type=int, default=1)
    given = parser.parse_args()
    lesions = Lesions.from_table(read_table(TABLE), "label", "patient", scale_free=True)
    for seed in range(given.seeds):
        options = TrainingOptions(style="findings", folds=0, seed=seed)
        training, held_out = (lesions.take(rows) for rows in split_by_patient(lesions, 0.2, seed))
        with tempfile.TemporaryDirectory() as folder:
            ours = our_scores(training, held_out, options, Path(folder))
            usual = usual_scores(training, held_out, options, Path(folder))
        first, second = (float(roc_auc_score(held_out.labels, scores)) for scores in (ours, usual))
        print(
            f"seed {seed}, {options.epochs} epochs, {len(held_out)} lesions kept apart: AUC {first:.3f}, "
            f"of the Trainer {second:.3f}, difference {first - second:+.3f}; their log-odds "
            f"(standard deviation {usual.std():.2f}) differ by {np.abs(ours - usual).max():.4f} at most",
            flush=True,
        )


def our_scores(training: Lesions, held_out: Lesions, options: TrainingOptions, work: Path) -> NDArray[np.float64]:
    base = locate(BASE)
    checkpoint = work / "checkpoint"
    fitted = fit(training, MODALITY, base, options, checkpoint, lambda what, done: None, epochs=options.epochs)
    return np.array(fitted.reader(base, options).score(fitted.writer.write(held_out)))


def usual_scores(training: Lesions, held_out: Lesions, options: TrainingOptions, work: Path) -> NDArray[np.float64]:
    trainer = Usual(locate(BASE), training, MODALITY, work, options).train()
    tokenizer, model = trainer.data_collator.tokenizer, trainer.model.eval()
    with torch.no_grad():
        return np.array(
            [
                model(**tokenizer(prompt, return_tensors="pt")).logits.item()
                for prompt in fit_writer(training, MODALITY, options).write(held_out)
            ]
        )


if __name__ == "__main__":
    main()
