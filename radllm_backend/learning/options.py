"""What training and evaluation can be asked for: each option is declared here, and nowhere else.

Name, default, bounds and words of help are those of the fields below. The command line makes its flags of them, the
functions of the package's root take them by name, and a model's card keeps them.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Literal, TypeVar

from pydantic import Field, ValidationError

from radllm_backend.errors import RadllmError
from radllm_backend.language.prompt import PromptStyle
from radllm_backend.records import Record

DEFAULT_BASE = "smollm2-135m-instruct"
"""The base model where none is named."""
DEFAULT_METHOD = "lora"
"""What is trained where no method is named: the paper's model."""
Family = Literal["classical", "frozen", "lora", "fusion", "ablation"]
"""The kinds of models that an evaluation compares."""


class TrainingOptions(Record):
    """How a model is fitted. The defaults are those of the shipped models.

    The order of the fields is a part of what a checkpoint and a kept outcome are recognised by.
    """

    features: int = Field(8, ge=1, le=200, description="How many features mRMR takes.")
    """8 in Ra et al. 2025."""
    selection: Literal["mrmr", "filtered", "none"] = Field(
        "mrmr",
        description="mrmr; filtered: without correlated features, the number chosen by inner folds; none.",
    )
    """`filtered`: of correlated features the weaker go first, and inner folds choose how many mRMR takes, up to twice
    `features`; `none` writes every feature into the prompt."""
    style: PromptStyle = Field("numbers", description="How the prompt words a feature: numbers, findings or generic.")
    shuffle_order: bool = Field(False, description="Train on features in another order each time (augmentation).")
    """Predictions keep the stored order."""
    scale_free: bool = Field(False, description="Only features without a unit of length.")
    """They do not depend on the pixel spacing, so that images without one can be classified."""
    layers: int | None = Field(
        None,
        ge=1,
        description="How many layers of a frozen base model are read; inner folds choose where it is not given.",
    )
    """A model with an adapter reads all of them, as in the paper."""
    epochs: int = Field(4, ge=1, description="At most so many passes.")
    patience: int = Field(2, ge=1, description="Epochs without a lower validation loss before stopping.")
    learning_rate: float = Field(5e-4, gt=0, description="Highest learning rate of AdamW.")
    weight_decay: float = Field(0.01, ge=0, description="AdamW's weight decay.")
    warmup: float = Field(0.1, ge=0, lt=1, description="Share of the steps in which the learning rate rises.")
    """Then it falls as a cosine."""
    batch_size: int = Field(8, ge=1, description="Lesions a step.")
    validation: float = Field(0.2, gt=0, le=0.5, description="Share of the training lesions for early stopping.")
    """They are those of whole patients."""
    rank: int = Field(16, ge=1, description="Rank of the adapter.")
    alpha: int = Field(32, ge=1, description="Scale of the adapter.")
    seed: int = Field(0, description="Seed of everything random.")
    folds: int = Field(5, ge=0, description="Folds of the cross-validation in the card; 0 for none.")


INHERITED = ("style", "layers", "rank", "alpha")
"""The options that a model which continues another one has from that one."""


class CrossValidation(Record):
    """How lesions are divided to judge models on those that they did not learn from."""

    folds: int = Field(5, ge=1, description="Outer folds.")
    inner_folds: int = Field(5, ge=1, description="Inner folds, which choose what is left open.")
    seeds: int = Field(3, ge=1, description="How often the lesions are divided anew.")
    trained_seeds: int = Field(1, ge=1, description="For how many of these an adapter is trained.")
    """The others would take hours on a CPU."""
    shuffle_labels: bool = Field(
        False, description="Deal the labels out at random, anew with each seed: AUCs should be near 0.5."
    )
    """A test for leaks."""


Options = TypeVar("Options", TrainingOptions, CrossValidation)


def parse_options(model: type[Options], given: Mapping[str, object]) -> Options:
    """Options by their names, all others as usual.

    Raises:
        RadllmError: there is no such option, or it is out of range; it says which one.
    """
    try:
        return model.model_validate(given)
    except ValidationError as error:
        first = error.errors()[0]
        if first["type"] == "extra_forbidden":
            known = ", ".join(model.model_fields)
            raise RadllmError(f"There is no option '{first['loc'][0]}': the options are {known}.") from error
        raise RadllmError(f"The option '{first['loc'][0]}' is wrong: {first['msg'].lower()}.") from error


def flags_of(options: TrainingOptions | CrossValidation, inherited: Mapping[str, object] | None = None) -> list[str]:
    """The flags of a command line by which options differ from the usual ones.

    Args:
        inherited: options that the command has from elsewhere.
    """
    usual = {**type(options)().model_dump(), **(inherited or {})}
    words = []
    for name, value in options.model_dump().items():
        if value != usual[name]:
            flag = "--" + name.replace("_", "-")
            words += [flag] if value is True else [flag, str(value)]
    return words


def positional(name: str) -> str:
    """A file's name as a command line takes it: one that begins with a dash would be read as an option."""
    return f"./{name}" if name.startswith("-") else name
