"""Compare models on a table of lesions, and write what came of it."""

from __future__ import annotations

import shlex
from collections.abc import Collection, Mapping
from dataclasses import replace
from pathlib import Path
from typing import Any

from radllm_backend.features.table import FeatureTable
from radllm_backend.language import distributed
from radllm_backend.learning.compared_models import compared_models
from radllm_backend.learning.options import (
    DEFAULT_BASE,
    CrossValidation,
    TrainingOptions,
    flags_of,
    parse_options,
    positional,
)
from radllm_backend.learning.plan import EvaluationPlan, LabelledTable, find_base
from radllm_backend.learning.scorecard import Scorecard
from radllm_backend.learning.study import evaluate_table
from radllm_backend.records import Progress, say_nothing
from radllm_backend.reports.evaluation import write_evaluation
from radllm_backend.reports.evaluation_plots import check_drawing


def evaluate(
    table: str | Path | FeatureTable,
    target: str,
    group: str,
    output: str | Path,
    *,
    base_model: str | Path = DEFAULT_BASE,
    four_bit: bool = False,
    modality: str | None = None,
    language: bool = True,
    lora: bool = True,
    ablations: bool = False,
    costly: bool = True,
    families: Collection[str] = (),
    split: str | None = None,
    command: str | None = None,
    progress: Progress | None = None,
    **options: Any,
) -> Scorecard:
    """Compare models on a table of lesions by nested cross-validation with whole patients held out.

    The output gets ``evaluation.html``, ``evaluation.json`` and ``out_of_fold.csv``, and in the folder ``work`` what is
    finished: the same call goes on from there.

    Args:
        table: what ``radllm extract --manifest`` wrote: the file, or the table that `read_table` read from it.
        target: column that says benign or malignant.
        group: column that names the patient.
        output: folder, made if missing.
        base_model: a name of the catalogue, the hub name of one that was pulled, or a folder.
        four_bit: hold the base model in 4 bits a weight (a CUDA GPU and bitsandbytes).
        modality: MG, US, CT or MR, where the table does not say it.
        language: also the frozen language model and its fusions.
        lora: also the models that train an adapter: slow on a CPU.
        ablations: also the language models with one thing changed.
        costly: of the ablations also those that train once more.
        families: beside the classical models only those of these families; all where it is empty.
        split: column that says train or test for each lesion, instead of folds.
        command: what the report gives as the command that repeats it; that of this call where it is not given.
        progress: called with what is happening now, and how much is done (0..1).
        options: `CrossValidation` and `TrainingOptions` by name, as of the flags of ``radllm evaluate``:
            ``folds=2, seeds=1, features=4``.

    Returns:
        What ``evaluation.json`` says.

    Raises:
        RadllmError: the table is unfit, there are too few lesions of a class, the base model or matplotlib is not
            there, an option is out of range or unknown, or the output cannot be written.
    """
    check_drawing()  # before the hours rather than after them
    base = find_base(base_model, four_bit) if language else None
    division = {name: value for name, value in options.items() if name in CrossValidation.model_fields}
    fitting = {name: value for name, value in options.items() if name not in division}
    plan = EvaluationPlan(
        base=base,
        options=parse_options(TrainingOptions, fitting),
        work=Path(output) / "work",
        labelled=LabelledTable.of(table, target, group, modality),
        command="",
        division=parse_options(CrossValidation, division),
        split=split,
    )
    switches = {"language": language, "lora": lora, "ablations": ablations, "costly": costly}
    plan = replace(plan, command=command or _command(plan, Path(output), switches, families))
    models = compared_models(language, lora, ablations, families, costly)
    scorecard, outcomes = evaluate_table(plan, models, progress or say_nothing)
    if distributed.is_main():
        write_evaluation(Path(output), scorecard, outcomes)
    return scorecard


def _command(plan: EvaluationPlan, output: Path, switches: Mapping[str, bool], families: Collection[str]) -> str:
    """The command line that does the same, without the user's folders."""
    labelled = plan.labelled
    words = [positional(labelled.table.name), "--target", labelled.target, "--group", labelled.group]
    given = {
        "--base-model": plan.base.public_name if plan.base and plan.base.public_name != DEFAULT_BASE else None,
        "--modality": labelled.given_modality,
        "--families": ",".join(families),
        "--split": plan.split,
    }
    words += [word for flag, value in given.items() if value for word in (flag, value)]
    words += ["--four-bit"] * bool(plan.base and plan.base.four_bit)
    for name, on in switches.items():
        if on != (name != "ablations"):
            words.append(f"--{name}" if on else f"--no-{name}")
    return shlex.join(
        ["radllm", "evaluate", *words, *flags_of(plan.division), *flags_of(plan.options), "-o", output.name]
    )
