"""Training: what it learns, what it keeps apart, and that it survives being killed."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest

torch = pytest.importorskip("torch")

from hypothesis import given, settings
from hypothesis import strategies as st

from benchmarks.training import Usual
from radllm_backend.errors import RadllmError
from radllm_backend.features.cohort import outer_folds, split_by_patient
from radllm_backend.language import base_models
from radllm_backend.learning.fit import fit
from radllm_backend.learning.options import TrainingOptions, parse_options
from Testing.support.cohorts import NAMES, lesions


def quiet(what: str, done: float) -> None:
    pass


@pytest.fixture
def tiny(tiny_base: Path, fresh_cache: Path) -> base_models.BaseModelFolder:
    return base_models.locate(tiny_base)


OPTIONS = TrainingOptions(features=2, epochs=8, patience=8, learning_rate=0.005, rank=4, batch_size=8, folds=3)


def test_it_learns_what_can_be_learned(tiny, tmp_path):
    fitted = fit(lesions(), "US", tiny, OPTIONS, tmp_path / "checkpoint", quiet)
    assert fitted.writer.template.features[0] == NAMES[0]
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


def test_it_ends_where_the_trainer_of_transformers_ends(tiny, tmp_path):
    """The other implementation, with the same start, order, loss and learning rate: the same adapter and head.

    Sentences of two findings repeat, so that prompts of several lesions are among them; three lesions are left over.
    """
    options = TrainingOptions(features=2, epochs=8, learning_rate=0.02, rank=4, style="findings", seed=3)
    cohort = lesions(67)
    fitted = fit(cohort, "US", tiny, options, tmp_path / "checkpoint", quiet, epochs=8)
    prompts = fitted.writer.write(cohort)
    assert len(set(prompts)) < len(prompts)
    model = Usual(tiny, cohort, "US", tmp_path, options).train().model.eval()
    classifier = fitted.reader(tiny, options)
    with torch.no_grad():
        usual = [model(torch.tensor([classifier.tokenise(prompt)])).logits.item() for prompt in prompts]
    assert np.std(usual) > 0.1
    assert classifier.score(prompts) == pytest.approx(usual, abs=0.01)  # the adapter of a bundle has 16 bits


def test_it_stops_early(tiny, tmp_path):
    options = OPTIONS.model_copy(update={"epochs": 30, "patience": 1, "learning_rate": 0.1})
    fitted = fit(lesions(signal_strength=0), "US", tiny, options, tmp_path / "checkpoint", quiet)
    assert len(fitted.epochs) < 30


KILLED = """
import sys, time
from pathlib import Path
sys.path.insert(0, sys.argv[3])
from Testing.learning.test_fit import OPTIONS, lesions
from radllm_backend.language import base_models
from radllm_backend.learning.fit import fit
def report(what, done):
    print(what, flush=True)
    time.sleep(0.02)
fit(lesions(), "US", base_models.locate(sys.argv[1]), OPTIONS, Path(sys.argv[2]), report)
"""


@pytest.mark.long
def test_a_killed_training_goes_on_from_its_checkpoint(tiny, tmp_path):
    checkpoint = tmp_path / "checkpoint"
    whole = fit(lesions(), "US", tiny, OPTIONS, tmp_path / "undisturbed", quiet)
    command = [sys.executable, "-c", KILLED, str(tiny.folder), str(checkpoint), str(Path(__file__).parents[2])]
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


@pytest.mark.parametrize(
    ("option", "value"), [("epochs", 0), ("learning_rate", -1), ("features", 0), ("validation", 0.9), ("rank", 0)]
)
def test_an_option_out_of_range_is_named(option, value):
    with pytest.raises(RadllmError, match=f"option '{option}' is wrong"):
        parse_options(TrainingOptions, {option: value})


def test_an_option_that_is_none_is_named_with_those_there_are():
    with pytest.raises(RadllmError, match="There is no option 'depth': the options are features, selection, style"):
        parse_options(TrainingOptions, {"depth": 3})


def test_too_few_patients_are_counted():
    with pytest.raises(RadllmError, match="Benign lesions come from 3 patients and malignant ones from 3"):
        split_by_patient(lesions(count=6), 0.2, 0)
    with pytest.raises(RadllmError, match="only 2 patients in the smaller class"):
        outer_folds(lesions(count=4), OPTIONS.folds, OPTIONS.seed)
