"""What is to be learned or judged: from which lesions, with which base model and options, and where it is kept."""

from __future__ import annotations

from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING

from radllm_backend.errors import RadllmError
from radllm_backend.features.cohort import Lesions
from radllm_backend.features.table import FeatureTable, modality_of, read_table
from radllm_backend.language.backbone import in_four_bits
from radllm_backend.language.base_models import BaseModelFolder, locate
from radllm_backend.learning.options import DEFAULT_METHOD, CrossValidation, TrainingOptions

if TYPE_CHECKING:
    from radllm_backend.models.bundle import Bundle


@dataclass(frozen=True, kw_only=True)
class Plan:
    """What all that is learned or judged here has in common."""

    base: BaseModelFolder | None
    """The language model's weights; None where only classical models are compared."""
    options: TrainingOptions
    """Of the language model."""
    work: Path
    """Folder that keeps what is finished: the same plan goes on from there."""


@dataclass(frozen=True)
class LabelledTable:
    """A table of lesions, and which of its columns say what."""

    table: FeatureTable
    target: str
    """Column that says benign or malignant."""
    group: str
    """Column that names the patient."""
    given_modality: str | None = None
    """MG, US, CT or MR, where the table does not say it."""

    @classmethod
    def of(cls, table: str | Path | FeatureTable, target: str, group: str, modality: str | None) -> LabelledTable:
        """As users name it: a table that was read, or its file.

        Raises:
            RadllmError: the file is no table of lesions, or the table was not read from a file, by whose content cards
                and reports name it.
        """
        read = table if isinstance(table, FeatureTable) else read_table(table)
        if not read.sha256:
            raise RadllmError(f"The table {read.name} was not read from a file: write it and read it again.")
        return cls(read, target, group, modality)

    @property
    def modality(self) -> str:
        """The one modality of the lesions; RadllmError where it is unknown or mixed."""
        return modality_of(self.table, self.given_modality)

    def lesions(self, *, scale_free: bool) -> Lesions:
        """All of them; see `Lesions.from_table`."""
        return Lesions.from_table(self.table, self.target, self.group, scale_free=scale_free)


@dataclass(frozen=True, kw_only=True)
class TrainingPlan(Plan):
    """A model that is to be made of a table."""

    base: BaseModelFolder
    labelled: LabelledTable
    output: Path
    """New folder for the model."""
    work: Path = field(init=False)
    method: str = DEFAULT_METHOD
    """One of `methods.bundled_methods`."""
    settings: str | Path | None = None
    """Preset or file that the table was extracted with; found out from its provenance where it is not given."""
    description: str = ""
    by: str | None = None
    """A descriptor: the card also says how well the model does in the lesions of each of its values."""
    evaluations: tuple[Path, ...] = ()
    """``evaluation.json`` of other trials on these lesions, which the card sums up."""
    origin: Bundle | None = None
    """A model to continue; None for a fresh adapter."""

    def __post_init__(self) -> None:
        object.__setattr__(self, "work", self.output.with_name(self.output.name + ".training"))


@dataclass(frozen=True, kw_only=True)
class EvaluationPlan(Plan):
    """Models that are to be compared on a table."""

    labelled: LabelledTable
    command: str
    """What repeats the evaluation, without the user's folders."""
    division: CrossValidation = field(default_factory=CrossValidation)
    split: str | None = None
    """Column that says train or test for each lesion, instead of folds."""


def find_base(name_or_folder: str | Path, four_bit: bool = False) -> BaseModelFolder:
    """The base model of a plan, as it lies there or to be held in 4 bits; see `locate` and `in_four_bits`."""
    base = locate(name_or_folder)
    return in_four_bits(base) if four_bit else base
