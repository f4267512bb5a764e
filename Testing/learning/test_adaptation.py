"""The adaptation curve: fair divisions, the same lesions for every model, and nothing computed twice."""

from __future__ import annotations

import shutil
from dataclasses import replace

import numpy as np
import pytest
from scipy import stats

pytest.importorskip("torch")

from radllm_backend.errors import RadllmError
from radllm_backend.features.cohort import Lesions
from radllm_backend.language import base_models
from radllm_backend.learning import adaptation
from radllm_backend.learning import fit as training
from radllm_backend.learning.adaptation import (
    BASELINES,
    LORA_ADAPTED,
    LORA_FROM_SCRATCH,
    AdaptationCurve,
    Cohort,
    CurveTrial,
    Experiment,
    compare_names,
    curve_points,
    run_experiment,
)
from radllm_backend.learning.fit import Start
from radllm_backend.learning.options import TrainingOptions
from radllm_backend.learning.plan import LabelledTable
from Testing.support.cohorts import NAMES, lesions

MODELS = (LORA_ADAPTED, LORA_FROM_SCRATCH, *BASELINES)
SHARED, NEW = NAMES[:3], tuple(f"original_firstorder_{name}" for name in ("Mean", "Median", "Energy"))
OPTIONS = TrainingOptions(features=4, epochs=4, learning_rate=0.005, rank=2, batch_size=8)


def quiet(what: str, done: float) -> None:
    pass


@pytest.fixture(scope="module", autouse=True)
def few_steps():
    """A tiny model learns as little from few steps as from many; how many there are is tested on its own."""
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(adaptation, "_FEWEST_STEPS", 4)
        yield


@pytest.fixture(scope="module")
def base(tiny_base, tmp_path_factory):
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("RADLLM_CACHE", str(tmp_path_factory.mktemp("cache")))
        yield base_models.locate(tiny_base)


def target_lesions(count: int = 40, each: int = 1) -> Lesions:
    """Other patients, described by half of the source's features, three of their own and a descriptor."""
    own = lesions(count, seed=5, each=each)
    shapes = np.where(own.labels == 1, "irregular", "oval")
    return Lesions(
        SHARED + NEW,
        own.values,
        own.labels,
        np.char.add("target ", own.groups),
        ("mass_shape",),
        shapes[:, None],
    )


@pytest.fixture(scope="module")
def experiment(base, tmp_path_factory):
    return Experiment(
        source=Cohort("a.csv", lesions(40), "US"),
        target=Cohort("b.csv", target_lesions(), "US"),
        base=base,
        options=OPTIONS,
        work=tmp_path_factory.mktemp("work") / "kept",
        command="radllm adaptation-curve a.csv b.csv",
        sizes=(12, 6),
        repeats=2,
    )


@pytest.fixture(scope="module")
def reports():
    return []


@pytest.fixture(scope="module")
def curve(experiment, reports):
    return run_experiment(experiment, lambda *what: reports.append(what))


# --- the experiment -------------------------------------------------------------------------------------------------


def test_every_model_learns_from_every_size_in_every_repeat(curve):
    assert [(one.repeat, one.size, one.model) for one in curve.trials] == [
        (repeat, size, model) for repeat in (0, 1) for size in (6, 12) for model in MODELS
    ]
    assert all(0 <= one.auc <= 1 for one in curve.trials)
    assert {(one.model, one.size) for one in curve.points} == {(model, size) for model in MODELS for size in (6, 12)}


def test_the_curve_says_what_it_is_of(curve, experiment, base):
    assert (curve.source, curve.target, curve.command) == ("a.csv", "b.csv", experiment.command)
    assert (curve.source_lesions, curve.left_out, curve.test_lesions) == (40, 0, [20, 20])
    assert (curve.base_sha256, curve.options) == (base.sha256, OPTIONS)
    assert AdaptationCurve.model_validate_json(curve.model_dump_json()) == curve


def test_names_of_both_kinds_are_compared(curve):
    assert curve.shared == list(SHARED)
    assert curve.only_source == list(NAMES[3:])
    assert curve.only_target == [*NEW, "mass_shape"]
    both, only_first, only_second = compare_names(target_lesions(), target_lesions())
    assert (both, only_first, only_second) == ([*SHARED, *NEW, "mass_shape"], [], [])


def test_classical_models_find_a_planted_signal(curve):
    """Feature and descriptor tell the classes apart, so that even six lesions show how."""
    assert all(one.auc > 0.9 for one in curve.trials if one.model in BASELINES)


def test_progress_only_goes_forward(curve, reports):
    shares = [share for _, share in reports]
    assert shares == sorted(shares)
    assert 0 < shares[0] < shares[-1] <= 1
    words = [what for what, _ in reports]
    assert words[0].startswith("a.csv, epoch 1/4")
    assert words[-1] == "repeat 2, 12 lesions, random forest"


# --- what each model gets -------------------------------------------------------------------------------------------


@pytest.fixture(scope="module")
def fits(experiment, tmp_path_factory):
    """What every language model of a run of two repeats at one size was fitted with."""
    calls = []

    def recorded(lesions, modality, base, options, checkpoint, report, epochs=None, start=None):
        calls.append((lesions, options, epochs, start))
        return fit(lesions, modality, base, options, checkpoint, report, epochs=epochs, start=start)

    fit = adaptation.fit
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(adaptation, "fit", recorded)
        run_experiment(replace(experiment, work=tmp_path_factory.mktemp("fits"), sizes=(8,)), quiet)
    return calls


def test_the_adapted_model_starts_from_the_source_and_the_other_from_nothing(fits):
    source, *others = fits
    assert source[3] is None
    assert list(source[0].features) == list(NAMES)
    starts = [start for *_, start in others]
    assert [start is None for start in starts] == [False, True] * 2
    assert all(set(start.features) <= set(NAMES) and len(start.features) == 4 for start in starts[::2])


def test_a_pair_differs_in_nothing_but_its_start(fits):
    adapted, scratch = fits[1::2], fits[2::2]
    for (one, options, epochs, _), (other, *same, _) in zip(adapted, scratch, strict=True):
        assert (one.values == other.values).all()
        assert (one.labels == other.labels).all()
        assert [options, epochs] == same
    assert [options.seed for _, options, *_ in adapted] == [0, 1]
    assert (adapted[0][0].groups != adapted[1][0].groups).any()


class Stopped(Exception):
    """In place of a training."""


@pytest.mark.parametrize(("size", "epochs"), [(4, 18), (6, 12), (8, 9), (40, 4)])
def test_of_few_lesions_there_are_more_epochs_until_there_are_steps_enough(experiment, monkeypatch, size, epochs):
    """Nine steps of eight lesions, and never fewer epochs than the options say."""
    given = {}

    def recorded(labelled, modality, base, options, *_, **named):
        given.update(named, schedule=options.epochs)
        raise Stopped

    monkeypatch.setattr(adaptation, "_FEWEST_STEPS", 9)
    monkeypatch.setattr(adaptation, "fit", recorded)
    labelled = experiment.target.lesions.take(np.arange(size))
    task = adaptation._Task(0, labelled, labelled, "US", OPTIONS)
    with pytest.raises(Stopped):
        adaptation._language_scores(experiment.base, None, task, experiment.work, quiet)
    assert (given["epochs"], given["schedule"]) == (epochs, epochs)


def test_lesions_of_patients_whom_the_target_has_are_left_out_of_the_source(experiment, tmp_path, monkeypatch):
    source = experiment.source.lesions
    groups = source.groups.astype("<U40")
    groups[:5] = experiment.target.lesions.groups[:5]
    seen = []
    monkeypatch.setattr(
        adaptation, "_train_source", lambda _, data, __: seen.append(data.lesions) or Start({}, ("a feature",))
    )
    monkeypatch.setattr(adaptation, "_language_scores", lambda *_: np.arange(20.0))
    data = Cohort("a.csv", replace(source, groups=groups), "US")
    found = run_experiment(replace(experiment, source=data, work=tmp_path, sizes=(8,)), quiet)
    assert (found.left_out, found.source_lesions) == (5, 35)
    assert not set(seen[0].groups) & set(experiment.target.lesions.groups)
    assert (seen[0].values == source.values[5:]).all()


# --- resumption -----------------------------------------------------------------------------------------------------


@pytest.fixture
def kept(curve, experiment, tmp_path, monkeypatch):
    """The experiment with a copy of all it kept, where no model of the target may be fitted."""
    for name in ("_language_scores", "_classical_scores"):
        monkeypatch.setattr(adaptation, name, lambda *_: pytest.fail("computed again"))
    return replace(experiment, work=shutil.copytree(experiment.work, tmp_path / "work"))


def test_a_second_run_computes_nothing(kept, curve, monkeypatch):
    monkeypatch.setattr(training._Run, "_epoch", lambda _: pytest.fail("trained again"))
    assert run_experiment(kept, quiet) == curve
    assert {path.suffix for path in kept.work.glob("trial-*")} == {".json"}


def test_fewer_sizes_are_part_of_what_is_there(kept, curve):
    """As long as the largest stays: it decides how the lesions are divided."""
    found = run_experiment(replace(kept, sizes=(12,)), quiet)
    assert found.trials == [one for one in curve.trials if one.size == 12]


@pytest.mark.parametrize(
    "change",
    [
        lambda own: {"sizes": (6, 10, 12)},
        lambda own: {"repeats": 3},
        lambda own: {"options": OPTIONS.model_copy(update={"learning_rate": 0.001})},
        lambda own: {"target": replace(own.target, modality="MG")},
        lambda own: {"target": replace(own.target, lesions=with_another(own.target.lesions, "values", 7.0))},
        lambda own: {"target": replace(own.target, lesions=with_another(own.target.lesions, "categories", "round"))},
    ],
)
def test_anything_else_is_computed(kept, change):
    with pytest.raises(pytest.fail.Exception, match="computed again"):
        run_experiment(replace(kept, **change(kept)), quiet)


def test_a_new_source_spares_the_models_that_do_not_start_from_it(kept, monkeypatch):
    adapted = []
    monkeypatch.setattr(
        adaptation, "_language_scores", lambda _, start, task, *__: adapted.append(start) or ranks(task)
    )
    run_experiment(replace(kept, source=Cohort("c.csv", lesions(40, seed=9), "US")), quiet)
    assert len(adapted) == 4
    assert None not in adapted


def ranks(task):
    return np.arange(float(len(task.judges)))


def with_another(own: Lesions, field: str, value) -> Lesions:
    """The same lesions; every one has another entry in the last column."""
    content = getattr(own, field).copy()
    content[:, -1] = value
    return replace(own, **{field: content})


def test_a_damaged_trial_is_one_sentence(kept):
    path = next(kept.work.glob("trial-*.json"))
    path.write_text('{"model": "x"}')
    with pytest.raises(RadllmError, match=f"The trial {path.name} is damaged: delete it to compute it anew."):
        run_experiment(kept, quiet)


# --- what cannot be done --------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("change", "sentence"),
    [
        ({"repeats": 1}, "a number of labelled lesions and at least 2 repeats"),
        ({"sizes": ()}, "a number of labelled lesions and at least 2 repeats"),
        ({"sizes": (-4, 10)}, "a number of labelled lesions and at least 2 repeats"),
        ({"sizes": (2, 10)}, "2 lesions of b.csv are 1 benign and 1 malignant ones and 2 of each are needed"),
        ({"sizes": (10, 39)}, "39 labelled lesions leave too few of the 40 of b.csv to judge: ask for smaller sizes"),
    ],
)
def test_sizes_and_repeats_that_cannot_be_are_refused_before_anything_is_trained(
    experiment, tmp_path, change, sentence
):
    with pytest.raises(RadllmError, match=sentence):
        run_experiment(replace(experiment, work=tmp_path / "work", **change), quiet)
    assert not (tmp_path / "work").exists()


def test_a_target_with_one_malignant_patient_is_refused(experiment, tmp_path):
    own = target_lesions()
    one = replace(own, labels=(np.arange(40) == 3).astype(int))
    with pytest.raises(RadllmError, match="has 39 patients with benign and 1 with malignant lesions, and at least 2"):
        run_experiment(replace(experiment, work=tmp_path, target=Cohort("b.csv", one, "US")), quiet)


def test_the_same_patients_in_both_are_refused(experiment, tmp_path):
    both = replace(experiment, work=tmp_path, target=Cohort("b.csv", lesions(40), "US"))
    with pytest.raises(RadllmError, match="a.csv and b.csv name the same patients, .* give patients of different"):
        run_experiment(both, quiet)


def test_a_table_becomes_a_data_set(tmp_path):
    path = tmp_path / "b.csv"
    rows = ["patient,truth,original_glcm_Contrast,descriptor_mass_shape"]
    path.write_text("\n".join([*rows, "p1,benign,1.5,oval", "p2,malignant,2.5,"]) + "\n")
    data = Cohort.from_table(LabelledTable.of(path, "truth", "patient", "MG"))
    assert (data.name, data.modality, data.lesions.features) == ("b.csv", "MG", ("original_glcm_Contrast",))
    assert (data.lesions.descriptors, data.lesions.categories.tolist()) == (("mass_shape",), [["oval"], [""]])
    with pytest.raises(RadllmError, match="b.csv does not say the modality"):
        Cohort.from_table(LabelledTable.of(path, "truth", "patient", None))


def test_data_sets_of_descriptors_alone_can_be_adapted_too(experiment, tmp_path):
    source, target = (
        replace(own, features=(), values=np.empty((40, 0)), descriptors=(name,), categories=shapes[:, None])
        for own, name, shapes in (
            (lesions(40), "mass_margins", np.where(lesions(40).labels == 1, "spiculated", "circumscribed")),
            (target_lesions(), "mass_shape", target_lesions().categories[:, 0]),
        )
    )
    data = {"source": Cohort("a.csv", source, "MG"), "target": Cohort("b.csv", target, "MG")}
    found = run_experiment(replace(experiment, work=tmp_path, sizes=(6,), **data), quiet)
    assert (found.shared, found.only_source, found.only_target) == ([], ["mass_margins"], ["mass_shape"])
    assert all(one.auc == 1 for one in found.trials if one.model in BASELINES)


# --- points ---------------------------------------------------------------------------------------------------------


def test_a_point_is_a_mean_with_students_interval():
    aucs = [0.7, 0.8, 0.75, 0.9]
    trials = [CurveTrial(model="m", size=10, repeat=repeat, auc=auc) for repeat, auc in enumerate(aucs)]
    (point,) = curve_points(trials)
    low, high = stats.ttest_1samp(aucs, 0).confidence_interval(0.95)
    assert (point.auc.value, point.auc.low, point.auc.high) == pytest.approx((0.7875, low, high))
    far = [trial.model_copy(update={"auc": auc}) for trial, auc in zip(trials, (0.9, 1.0), strict=False)]
    assert curve_points(far)[0].auc.high == 1
