"""Training: what it learns, what it keeps apart, and that it survives being killed."""

from __future__ import annotations

import json
import os
import signal
import subprocess
import sys
import time
from pathlib import Path

import numpy as np
import pytest

pytest.importorskip("torch")

from hypothesis import given, settings
from hypothesis import strategies as st
from sklearn.metrics import roc_auc_score

from radllm_backend import base_models
from radllm_backend.cohort import Lesions, outer_folds, split_by_patient
from radllm_backend.errors import RadllmError
from radllm_backend.evaluation import LORA, area_under_curve, cross_validate, performances
from radllm_backend.training import TrainingOptions, fit, parse_options

NAMES = tuple(f"original_glcm_{name}" for name in ("Contrast", "Correlation", "Id", "Idm", "MCC", "Imc1"))


def quiet(what: str, done: float) -> None:
    pass


def lesions(count: int = 64, signal_strength: float = 3.0, seed: int = 0, each: int = 1) -> Lesions:
    """Lesions whose first feature tells the classes apart."""
    random = np.random.default_rng(seed)
    labels = np.arange(count) % 2
    values = random.normal(size=(count, len(NAMES)))
    values[:, 0] += signal_strength * labels
    return Lesions(NAMES, values, labels, np.array([f"patient{row // each // 2}-{row % 2}" for row in range(count)]))


@pytest.fixture
def tiny(tiny_base: Path, fresh_cache: Path) -> base_models.BaseModelFolder:
    return base_models.locate(tiny_base)


OPTIONS = TrainingOptions(features=2, epochs=8, patience=8, learning_rate=0.005, rank=4, batch_size=8, folds=3)


def test_it_learns_what_can_be_learned(tiny, tmp_path):
    fitted = fit(lesions(), "US", tiny, OPTIONS, tmp_path / "checkpoint", quiet)
    assert fitted.template.features[0] == NAMES[0]
    assert max(epoch.validation_auc for epoch in fitted.epochs) > 0.9
    assert fitted.epochs[-1].loss < fitted.epochs[0].loss


def test_the_same_seed_gives_the_same_model_and_another_seed_another(tiny, tmp_path):
    options = OPTIONS.model_copy(update={"epochs": 1})
    first, again = (fit(lesions(), "US", tiny, options, tmp_path / name, quiet) for name in "ab")
    other = fit(lesions(), "US", tiny, options.model_copy(update={"seed": 1}), tmp_path / "c", quiet)
    assert all((first.weights[name] == again.weights[name]).all() for name in first.weights)
    assert any((first.weights[name] != other.weights[name]).any() for name in first.weights)


def test_a_known_number_of_epochs_trains_on_every_lesion(tiny, tmp_path):
    fitted = fit(lesions(), "US", tiny, OPTIONS, tmp_path / "checkpoint", quiet, epochs=3)
    assert (len(fitted.epochs), fitted.kept_epoch) == (3, 3)
    assert all(epoch.validation_loss is None for epoch in fitted.epochs)
    early = fit(lesions(), "US", tiny, OPTIONS, tmp_path / "early", quiet)
    losses = [epoch.validation_loss for epoch in early.epochs]
    assert early.kept_epoch == losses.index(min(losses)) + 1


def test_it_stops_early(tiny, tmp_path):
    options = OPTIONS.model_copy(update={"epochs": 30, "patience": 1, "learning_rate": 0.1})
    fitted = fit(lesions(signal_strength=0), "US", tiny, options, tmp_path / "checkpoint", quiet)
    assert len(fitted.epochs) < 30


KILLED = """
import sys, time
from pathlib import Path
sys.path.insert(0, sys.argv[3])
from test_training import OPTIONS, lesions
from radllm_backend import base_models
from radllm_backend.training import fit
def report(what, done):
    print(what, flush=True)
    time.sleep(0.02)
fit(lesions(), "US", base_models.locate(sys.argv[1]), OPTIONS, Path(sys.argv[2]), report)
"""


def test_a_killed_training_goes_on_from_its_checkpoint(tiny, tmp_path):
    checkpoint = tmp_path / "checkpoint"
    whole = fit(lesions(), "US", tiny, OPTIONS, tmp_path / "undisturbed", quiet)
    command = [sys.executable, "-c", KILLED, str(tiny.folder), str(checkpoint), str(Path(__file__).parent)]
    with subprocess.Popen(command, stdout=subprocess.PIPE, text=True, env=os.environ) as process:
        for line in process.stdout:
            if line.startswith("epoch 4/"):
                process.send_signal(signal.SIGKILL)
                break
    assert process.returncode == -signal.SIGKILL
    seen: list[str] = []
    resumed = fit(lesions(), "US", tiny, OPTIONS, checkpoint, lambda what, done: seen.append(what))
    assert seen[0].startswith("epoch 4/")
    assert resumed.epochs == whole.epochs
    assert all((resumed.weights[name] == whole.weights[name]).all() for name in whole.weights)


def test_a_checkpoint_of_other_lesions_is_not_continued(tiny, tmp_path):
    options = OPTIONS.model_copy(update={"epochs": 1})
    fit(lesions(), "US", tiny, options, tmp_path / "checkpoint", quiet)
    seen: list[str] = []
    fit(lesions(seed=1), "US", tiny, options, tmp_path / "checkpoint", lambda what, done: seen.append(what))
    assert seen[0].startswith("epoch 1/")


def test_a_damaged_checkpoint_says_so(tiny, tmp_path):
    (tmp_path / "checkpoint").write_bytes(b"nonsense")
    with pytest.raises(RadllmError, match="checkpoint is damaged: delete it"):
        fit(lesions(), "US", tiny, OPTIONS, tmp_path / "checkpoint", quiet)


@settings(max_examples=30, deadline=None)
@given(st.integers(0, 1000), st.integers(1, 3))
def test_no_patient_is_on_two_sides(seed, each):
    cases = lesions(count=60, seed=seed, each=each)
    for training, held_out in [split_by_patient(cases, 0.2, seed), *outer_folds(cases, OPTIONS.folds, OPTIONS.seed)]:
        assert not set(cases.groups[training]) & set(cases.groups[held_out])
        assert sorted([*training, *held_out]) == list(range(60))
        assert len(set(cases.labels[held_out])) == 2


def test_finished_folds_are_kept_and_shuffled_labels_are_not_predicted(tiny, tmp_path):
    cases = lesions(count=90, signal_strength=0)
    options = OPTIONS.model_copy(update={"epochs": 2})
    results = cross_validate(cases, "US", tiny, options, tmp_path, quiet)
    for row in performances(results, cases):
        assert row.auc_interval[0] <= 0.5 <= row.auc_interval[1], row
    seen: list[str] = []
    again = cross_validate(cases, "US", tiny, options, tmp_path, lambda what, done: seen.append(what))
    assert (seen, again) == ([], results)
    (tmp_path / "fold-1.json").unlink()
    start = time.monotonic()
    again = cross_validate(cases, "US", tiny, options, tmp_path, lambda what, done: seen.append(what))
    assert {what.split(",")[0] for what in seen} == {"fold 2/3"}, time.monotonic() - start
    assert json.dumps(again[1].scores[LORA]) == json.dumps(results[1].scores[LORA])


def test_selection_cannot_see_the_held_out_labels(tiny, tmp_path):
    """With 300 columns of noise and 60 lesions, selecting before the folds would give an AUC far above 0.5."""
    random = np.random.default_rng(3)
    names = tuple(
        f"wavelet{level}-{band}_glcm_{name}"
        for level in range(1, 21)
        for band in ("LL", "LH", "HH")
        for name in ("Id", "Idm", "Idn", "Idmn", "MCC")
    )
    labels = np.arange(60) % 2
    cases = Lesions(names, random.normal(size=(60, len(names))), labels, np.array([str(row) for row in range(60)]))
    results = cross_validate(cases, "US", tiny, OPTIONS.model_copy(update={"epochs": 1}), tmp_path, quiet)
    for row in performances(results, cases):
        assert row.auc_interval[0] <= 0.5 <= row.auc_interval[1], row


@given(st.lists(st.tuples(st.integers(0, 1), st.integers(-3, 3)), min_size=2, max_size=40))
def test_the_area_is_scikit_learns(cases):
    labels, scores = np.array([case[0] for case in cases]), np.array([case[1] for case in cases], dtype=float)
    if len(set(labels)) == 2:
        assert area_under_curve(labels, scores) == pytest.approx(roc_auc_score(labels, scores), abs=1e-12)


def test_intervals_count_patients_not_lesions():
    from radllm_backend.evaluation import FoldResult

    random = np.random.default_rng(0)
    single = lesions(count=60, signal_strength=0)
    scores = (single.labels + random.normal(0, 1.2, 60)).tolist()
    tenfold = Lesions(
        NAMES, np.repeat(single.values, 10, 0), np.repeat(single.labels, 10), np.repeat(single.groups, 10)
    )
    widths = []
    for cases, values in ((single, scores), (tenfold, np.repeat(scores, 10).tolist())):
        result = FoldResult(rows=list(range(len(cases))), scores={LORA: values}, features=[NAMES[0]], epochs=1)
        low, high = performances([result], cases)[0].auc_interval
        widths.append(high - low)
    assert widths[1] == pytest.approx(widths[0], rel=0.15)


@pytest.mark.parametrize(
    ("option", "value"), [("epochs", 0), ("learning_rate", -1), ("features", 0), ("validation", 0.9), ("rank", 0)]
)
def test_an_option_out_of_range_is_named(option, value):
    with pytest.raises(RadllmError, match=f"option '{option}' is wrong"):
        parse_options(**{option: value})


def test_too_few_patients_are_counted():
    with pytest.raises(RadllmError, match="There are 3 patients with benign and 3 with malignant lesions"):
        split_by_patient(lesions(count=6), 0.2, 0)
    with pytest.raises(RadllmError, match="only 2 patients in the smaller class"):
        outer_folds(lesions(count=4), OPTIONS.folds, OPTIONS.seed)
