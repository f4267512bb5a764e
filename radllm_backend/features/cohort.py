"""The lesions that something learns from or is judged on, and how they are divided: whole patients, both classes."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field, replace

import numpy as np
from numpy.typing import NDArray
from sklearn.model_selection import StratifiedGroupKFold

from radllm_backend.errors import RadllmError, counted
from radllm_backend.features.arrays import FloatArray, IntArray
from radllm_backend.features.names import depends_on_spacing
from radllm_backend.features.table import FeatureTable


def _no_categories() -> NDArray[np.str_]:
    return np.empty((0, 0), dtype=str)


@dataclass(frozen=True)
class Lesions:
    """Lesions with their feature values, descriptors, labels and the patients they belong to."""

    features: tuple[str, ...]
    """PyRadiomics names, one a column of `values`."""
    values: FloatArray
    """Lesions × features; NaN where a value is missing."""
    labels: IntArray
    """0 benign, 1 malignant."""
    groups: NDArray[np.str_]
    """The patient of each lesion."""
    descriptors: tuple[str, ...] = ()
    """Names of the radiologist's categorical findings (`descriptors.VOCABULARIES`), one a column of `categories`."""
    categories: NDArray[np.str_] = field(default_factory=_no_categories)
    """Lesions × descriptors; canonical values, empty where a descriptor was not given."""

    def __post_init__(self) -> None:
        if not self.descriptors and self.categories.size == 0:
            object.__setattr__(self, "categories", np.empty((len(self.labels), 0), dtype=str))

    def __len__(self) -> int:
        return len(self.labels)

    @classmethod
    def from_table(cls, table: FeatureTable, target: str, group: str, *, scale_free: bool = False) -> Lesions:
        """The lesions of a table.

        Args:
            target: column that says benign or malignant.
            group: column that names the patient.
            scale_free: without the features that depend on the pixel spacing.

        Raises:
            RadllmError: a column or a cell is missing, another word than those two, or only one of them.
        """
        keep = np.array([not (scale_free and depends_on_spacing(name)) for name in table.features], dtype=bool)
        return cls(
            tuple(name for name, kept in zip(table.features, keep, strict=True) if kept),
            table.values[:, keep],
            table.labels(target),
            np.array(table.column(group)),
            table.descriptors,
            table.categories,
        )

    def shuffled(self, seed: int) -> Lesions:
        """The same lesions with their labels dealt out at random: what a model finds in them is chance, or a leak."""
        return replace(self, labels=np.random.default_rng(seed).permutation(self.labels))

    def take(self, rows: NDArray[np.int_]) -> Lesions:
        """Some of the lesions."""
        return Lesions(
            self.features,
            self.values[rows],
            self.labels[rows],
            self.groups[rows],
            self.descriptors,
            self.categories[rows],
        )

    def with_features(self, names: Sequence[str]) -> Lesions:
        """The same lesions with some of their features only, in the order given."""
        return replace(self, features=tuple(names), values=self.columns(names))

    def columns(self, names: Sequence[str]) -> FloatArray:
        """Their values of some features, in the order given."""
        where = {name: index for index, name in enumerate(self.features)}
        return self.values[:, [where[name] for name in names]]

    def named(self, descriptors: Sequence[str]) -> NDArray[np.str_]:
        """Their values of some descriptors, in the order given."""
        where = {name: index for index, name in enumerate(self.descriptors)}
        return self.categories[:, [where[name] for name in descriptors]]


def outer_folds(lesions: Lesions, folds: int, seed: int) -> list[tuple[IntArray, IntArray]]:
    """(training rows, held-out rows) of each fold: stratified by label, grouped by patient.

    Raises:
        RadllmError: one fold, or more folds than patients in the smaller class.
    """
    if folds == 1:
        raise RadllmError("One fold leaves nothing to train on: use at least 2 folds, or 0 for none.")
    patients = min(patients_by_class(lesions))
    if patients < folds:
        raise RadllmError(
            f"There are {folds} folds and only {counted(patients, 'patient')} in the smaller class: "
            "add lesions or use fewer folds."
        )
    splitter = StratifiedGroupKFold(folds, shuffle=True, random_state=seed)
    return list(splitter.split(lesions.values, lesions.labels, lesions.groups))


def patients_by_class(lesions: Lesions) -> tuple[int, int]:
    """How many patients have a benign lesion, and how many a malignant one."""
    benign, malignant = (len(set(lesions.groups[lesions.labels == label])) for label in (0, 1))
    return benign, malignant


def split_by_patient(lesions: Lesions, share: float, seed: int) -> tuple[IntArray, IntArray]:
    """Row numbers of a training and a validation part: stratified by label, no patient in both.

    Raises:
        RadllmError: too few patients of one class.
    """
    parts = max(2, round(1 / share))
    patients = patients_by_class(lesions)
    if min(patients) < parts:
        raise RadllmError(
            f"Benign lesions come from {counted(patients[0], 'patient')} and malignant ones from {patients[1]}, and at "
            f"least {parts} of each are needed: add lesions or use fewer folds."
        )
    splitter = StratifiedGroupKFold(parts, shuffle=True, random_state=seed)
    training, validation = next(iter(splitter.split(lesions.values, lesions.labels, lesions.groups)))
    if len(set(lesions.labels[validation])) < 2:
        raise RadllmError("One class has too few patients for a validation part: add lesions.")
    return training, validation
