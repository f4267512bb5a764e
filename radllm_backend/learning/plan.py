"""What a training is asked to do, which model it may continue, and the command that repeats it."""

from __future__ import annotations

import shlex
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from radllm_backend.errors import RadllmError
from radllm_backend.features.extraction import Settings
from radllm_backend.features.table import FeatureTable
from radllm_backend.language.base_models import BaseModelFolder
from radllm_backend.learning.compared_models import NAMES
from radllm_backend.learning.fit import TrainingOptions
from radllm_backend.models.bundle import Bundle, read_bundle

DEFAULT_BASE = "smollm2-135m-instruct"
DEFAULT_METHOD = "lora"


@dataclass(frozen=True)
class TrainingPlan:
    """What `train` is asked to do."""

    table: FeatureTable
    table_path: Path
    target: str
    """Column that says benign or malignant."""
    group: str
    """Column that names the patient."""
    base: BaseModelFolder
    options: TrainingOptions
    output: Path
    method: str = DEFAULT_METHOD
    """One of `methods.METHODS`."""
    settings: Settings | None = None
    """How the table was extracted; found out from its provenance where it is not given."""
    modality: str | None = None
    description: str = ""
    by: str | None = None
    """A descriptor: the card also says how well the model does in the lesions of each of its values."""
    evaluations: tuple[Path, ...] = ()
    """``evaluation.json`` of other trials on these lesions, which the card sums up."""
    origin: Bundle | None = None
    """A model to continue; None for a fresh adapter."""


def continued(name_or_folder: str | Path) -> Bundle:
    """A bundle whose adapter training can go on from.

    Raises:
        RadllmError: no such model, or it has no adapter.
    """
    bundle = read_bundle(name_or_folder)
    if not bundle.card.adapter:
        raise RadllmError(
            f"The model {bundle.card.name} has a frozen language model and no adapter to continue: "
            "train a new model on the table, or adapt one with a LoRA adapter."
        )
    return bundle


def inherited(bundle: Bundle) -> dict[str, Any]:
    """The training options that a model which continues this one cannot choose."""
    adapter = bundle.card.adapter
    shape = {"rank": adapter.rank, "alpha": adapter.alpha} if adapter else {}
    return {"style": bundle.card.style, **shape}


def method_of(bundle: Bundle) -> str:
    """The bundle's method by the name of `methods.METHODS`."""
    return next(name for name, words in NAMES.items() if words == bundle.card.method)


def command_of(plan: TrainingPlan) -> str:
    """The command line that repeats this training, without the user's folders."""
    start = ["adapt", plan.origin.card.name] if plan.origin else ["train"]
    words = ["radllm", *start, plan.table_path.name, "--target", plan.target, "--group", plan.group]
    words += _changed_options(plan)
    base = plan.base.public_name
    given = {
        "--method": plan.method if plan.method != DEFAULT_METHOD and not plan.origin else None,
        "--by": plan.by,
        "--settings": plan.settings.name if plan.settings else None,
        "--modality": plan.modality,
        "--base-model": base if base != DEFAULT_BASE else None,
        "--description": plan.description,
    }
    words += [word for flag, value in given.items() if value for word in (flag, value)]
    words += ["--four-bit"] * plan.base.four_bit
    for path in plan.evaluations:
        words += ["--evaluation", f"{path.parent.name}/{path.name}"]
    return shlex.join([*words, "-o", plan.output.name])


def _changed_options(plan: TrainingPlan) -> list[str]:
    """The training options that are neither as usual nor those of the model that is continued."""
    usual = {**TrainingOptions().model_dump(), **(inherited(plan.origin) if plan.origin else {})}
    words = []
    for name, value in plan.options.model_dump().items():
        if value != usual[name]:
            flag = "--" + name.replace("_", "-")
            words += [flag] if value is True else [flag, str(value)]
    return words
