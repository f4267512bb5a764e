"""Models that several tests of the Slicer module share."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

import pytest

from Testing.conftest import make
from Testing.support import tiny_models

_WORDS = (
    ("benign", "mass", "oval", "", "extremely dense"),
    ("malignant", "mass", "irregular and lobulated", "", "heterogeneously dense"),
    ("benign", "calcification", "", "vascular", "extremely dense"),
    ("malignant", "calcification", "", "pleomorphic", "almost entirely fatty"),
)


def train(how: Callable[..., None], folder: Path, lines: list[str], base: Path) -> Path:
    """A model in a folder, trained by a function of tiny_models on the lines of a table."""
    (folder / "table.csv").write_text("\n".join(lines) + "\n", encoding="utf-8")
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("RADLLM_CACHE", str(folder / "cache"))
        make(how, folder / "table.csv", base, folder / "model")
    return folder / "model"


@pytest.fixture(scope="session")
def words_model(tiny_base: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A model that reads words alone, of masses and of calcifications."""
    names = ("lesion_type", "mass_shape", "calcification_type", "breast_density")
    heading = ",".join(["lesion", "label", "patient", *(f"descriptor_{name}" for name in names)])
    lines = [heading]
    for number in range(24):
        label, *words = _WORDS[number % 4]
        lines.append(",".join([f"lesion{number}", label, f"patient{number}", *words]))
    return train(tiny_models.train_on_words, tmp_path_factory.mktemp("words"), lines, tiny_base)
