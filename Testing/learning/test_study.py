"""Evaluation: every model judged on the same held-out lesions, nothing learned from them, nothing computed twice."""

from __future__ import annotations

import json
import shutil
from dataclasses import replace

import numpy as np
import pytest

pytest.importorskip("torch")

from radllm_backend.errors import RadllmError
from radllm_backend.features.selection import select_features
from radllm_backend.language import base_models
from radllm_backend.learning import study as evaluation
from radllm_backend.learning.compared_models import compared_models
from radllm_backend.learning.methods import CONCATENATED, FROZEN, LORA, WEIGHTED
from radllm_backend.learning.metrics import area_under_curve
from radllm_backend.learning.options import CrossValidation, TrainingOptions
from radllm_backend.learning.plan import EvaluationPlan, LabelledTable
from radllm_backend.learning.study import ComparedModel, Fold, Study, Verdict, evaluate_models, evaluate_table
from Testing.support.cohorts import lesions

pytestmark = pytest.mark.usefixtures("lean")
OPTIONS = TrainingOptions(features=2, epochs=1, learning_rate=0.005, rank=2, batch_size=16)


def quiet(what: str, done: float) -> None:
    pass


def pooled(outcomes, name, cohort):
    scores = np.full(len(cohort), np.nan)
    for outcome in outcomes:
        if outcome.model == name:
            scores[outcome.rows] = outcome.scores
    return area_under_curve(cohort.labels, scores)


@pytest.fixture(scope="module")
def base(tiny_base, tmp_path_factory):
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("RADLLM_CACHE", str(tmp_path_factory.mktemp("cache")))
        yield base_models.locate(tiny_base)


@pytest.fixture(scope="module")
def cohort():
    return lesions(count=48, signal_strength=3.0)


@pytest.fixture(scope="module")
def study(base, cohort, tmp_path_factory):
    return Study(
        lesions=cohort,
        modality="US",
        base=base,
        options=OPTIONS,
        work=tmp_path_factory.mktemp("work"),
        division=CrossValidation(folds=2, inner_folds=2),
    )


@pytest.fixture(scope="module")
def reports():
    return []


ONE_CLASSICAL = "logistic regression (L2), selected features"
ENTERED = [one for one in compared_models(ablations=True) if one.family != "classical" or one.name == ONE_CLASSICAL]
"""Whatever reads prompts, and one of the classical models, which are tested on their own."""


@pytest.fixture(scope="module")
def everything(study, reports):
    return evaluate_models(study, ENTERED, lambda *what: reports.append(what))


def test_every_model_judges_every_lesion_once(everything, cohort):
    for model in ENTERED:
        own = [outcome for outcome in everything if outcome.model == model.name]
        assert sorted(row for outcome in own for row in outcome.rows) == list(range(len(cohort))), model.name
        assert all(0 <= value <= 1 for outcome in own for value in outcome.probabilities)
        assert all(0 < outcome.threshold < 1 for outcome in own)


def test_they_find_a_planted_signal(everything, cohort):
    for name in [
        ONE_CLASSICAL,
        WEIGHTED,
        *(one.name for one in compared_models() if one.name.startswith(CONCATENATED)),
    ]:
        assert pooled(everything, name, cohort) > 0.8, name


def test_progress_only_goes_forward(everything, reports):
    shares = [share for _, share in reports]
    assert shares == sorted(shares)
    assert 0 == shares[0] < shares[-1] < 1
    assert {f"seed 0, fold {fold}, {ONE_CLASSICAL}" for fold in (1, 2)} <= {what for what, _ in reports}


def test_a_second_run_computes_nothing(everything, study, monkeypatch):
    monkeypatch.setattr(evaluation, "fit", lambda *_, **__: pytest.fail("trained again"))
    monkeypatch.setattr(evaluation, "open_reader", lambda *_, **__: pytest.fail("read again"))
    assert evaluate_models(study, ENTERED, quiet) == everything


# --- what is kept ---------------------------------------------------------------------------------------------------


READING = [
    one for one in compared_models(trained=False) if one.name in (FROZEN, f"{CONCATENATED}, logistic regression")
]


def without_time(outcomes):
    return [outcome.model_copy(update={"seconds": 0.0}) for outcome in outcomes]


@pytest.fixture(scope="module")
def read_once(study, tmp_path_factory):
    own = replace(study, work=tmp_path_factory.mktemp("read"))
    return own, without_time(evaluate_models(own, READING, quiet))


@pytest.fixture
def read_study(read_once, tmp_path):
    """A study of two models that read prompts, with what they said; its outcomes are lost, its hidden states kept."""
    own, said = read_once
    work = shutil.copytree(own.work, tmp_path / "work", ignore=shutil.ignore_patterns("outcome-*"))
    return replace(own, work=work), said


def test_a_resumed_evaluation_reads_no_prompt_again(read_study, monkeypatch):
    own, said = read_study
    assert len(list(own.work.iterdir())) == own.division.folds  # both models read the same prompts
    monkeypatch.setattr(evaluation, "open_reader", lambda *_, **__: pytest.fail("read again"))
    assert without_time(evaluate_models(own, READING, quiet)) == said


def test_no_layer_is_in_memory_that_is_not_to_be_read(study):
    shallow = replace(study, options=OPTIONS.model_copy(update={"layers": 1}))
    reader = Fold(shallow, 0, 0, study.parts(0)[0]).reader
    assert (reader.depth, len(reader._llama._layers)) == (2, 1)


def test_damaged_hidden_states_are_read_anew(read_study):
    own, said = read_study
    kept = {path: path.read_bytes() for path in own.work.iterdir()}
    for path, content in kept.items():
        path.write_bytes(content[: len(content) // 2])
    assert without_time(evaluate_models(own, READING, quiet)) == said
    assert all(path.read_bytes() == content for path, content in kept.items())


def test_other_prompts_and_another_adapter_are_read_on_their_own(read_study, monkeypatch):
    own, _ = read_study
    frozen = set(own.work.iterdir())
    evaluate_models(replace(own, options=OPTIONS.model_copy(update={"style": "generic"})), READING, quiet)
    generic = set(own.work.glob("states-*")) - frozen
    assert len(generic) == own.division.folds
    evaluate_models(own, [one for one in compared_models() if one.name == f"{CONCATENATED}, LoRA"], quiet)
    assert len(set(own.work.glob("states-*")) - frozen - generic) == own.division.folds


def counted(name, trained=False):
    """A model that says nothing, and in which folds it was asked."""
    judged = []

    def judge(fold):
        judged.append((fold.seed, fold.number))
        chance = np.full(len(fold.outside), 0.5)
        return Verdict(chance, chance, 0.5)

    return ComparedModel(name, "classical", judge, trained), judged


def changed(cohort, field, value):
    """The cohort with another first entry."""
    content = getattr(cohort, field).copy()
    content[0] = value
    return {"lesions": replace(cohort, **{field: content})}


@pytest.mark.parametrize(
    "change",
    [
        lambda cohort: changed(cohort, "labels", 1),
        lambda cohort: changed(cohort, "values", 0.1),
        lambda cohort: changed(cohort, "groups", "somebody"),
        lambda cohort: {"lesions": replace(cohort, features=cohort.features[::-1])},
        lambda _: {"modality": "MG"},
        lambda _: {"division": CrossValidation(folds=2, inner_folds=3)},
        lambda _: {"split": (np.arange(24), np.arange(24, 47))},
    ],
)
def test_a_changed_study_is_computed_anew_and_the_same_one_not(study, cohort, tmp_path, change):
    model, judged = counted("chance")
    own = replace(study, work=tmp_path, split=(np.arange(24), np.arange(24, 48)))
    evaluate_models(own, [model], quiet)
    evaluate_models(own, [model], quiet)
    assert len(judged) == 1
    evaluate_models(replace(own, **change(cohort)), [model], quiet)
    assert len(judged) == 2


def test_what_trains_runs_on_the_first_seeds_only(study, tmp_path):
    quick, asked_quick = counted("quick")
    slow, asked_slow = counted("slow", trained=True)
    outcomes = evaluate_models(replace(study, work=tmp_path, seeds=(4, 2)), [quick, slow], quiet)
    assert asked_quick == [(4, 0), (4, 1), (2, 0), (2, 1)]
    assert asked_slow == [(4, 0), (4, 1)]
    by_seed = {seed: [tuple(one.rows) for one in outcomes if one.seed == seed] for seed in (4, 2)}
    assert set(by_seed[4]) != set(by_seed[2])


# --- nothing leaks --------------------------------------------------------------------------------------------------


def test_what_a_model_says_hangs_on_the_training_lesions_and_the_lesion_alone(study, cohort, tmp_path):
    """Other labels of all held-out lesions, and other values of all but the first: the first is judged the same."""
    training, held_out = np.arange(32), np.arange(32, 48)
    others = held_out[1:]
    values, labels = cohort.values.copy(), cohort.labels.copy()
    values[others] = 3 * values[others[::-1]] + 1
    labels[held_out] = 1 - labels[held_out]
    split = replace(study, split=(training, held_out))
    first, second = (
        evaluate_models(replace(split, lesions=own, work=made(tmp_path / name)), compared_models(ablations=True), quiet)
        for name, own in (("one", cohort), ("other", replace(cohort, values=values, labels=labels)))
    )
    for one, other in zip(first, second, strict=True):
        assert one.rows == held_out.tolist()
        assert (one.scores[0], one.probabilities[0]) == pytest.approx((other.scores[0], other.probabilities[0])), one
        assert (one.threshold, one.selected) == (other.threshold, other.selected), one.model
        assert one.chosen == other.chosen
        assert one.scores != other.scores


def made(folder):
    folder.mkdir()
    return folder


def test_no_patient_is_on_both_sides(study, tmp_path):
    seen = []

    def judge(fold):
        seen.append((set(fold.inside.groups), set(fold.outside.groups)))
        return Verdict(np.zeros(len(fold.outside)), np.full(len(fold.outside), 0.5), 0.5)

    own = replace(
        study, lesions=lesions(count=60, each=3), work=tmp_path, seeds=(0, 1), division=CrossValidation(folds=5)
    )
    evaluate_models(own, [ComparedModel("memory", "classical", judge)], quiet)
    assert len(seen) == 10
    assert not any(inside & outside for inside, outside in seen)


@pytest.fixture(scope="module")
def noisy():
    """Few lesions and many columns of noise: who chooses among these on all lesions will find something."""
    return lesions(count=60, signal_strength=2.5, noise=60)


DEALINGS = 4
"""Of the labels, with seeds from 0 on: none was picked."""


@pytest.mark.long
def test_shuffled_labels_leave_nothing_to_find(noisy, base, tmp_path):
    path = write_table(tmp_path / "table.csv", noisy)
    shuffled = plan(
        path, tmp_path, base=base, division={"shuffle_labels": True, "seeds": DEALINGS, "trained_seeds": DEALINGS}
    )
    card, outcomes = evaluate_table(shuffled, compared_models(), quiet)
    assert card.shuffled_labels
    assert len(card.models) == len(compared_models())
    for model in card.models:
        assert model.seeds == DEALINGS
        assert model.auc.low <= 0.5 <= model.auc.high, model.model
    dealt = [labels_of(outcomes, seed) for seed in range(DEALINGS)]
    assert len(set(dealt)) == DEALINGS
    assert all(sorted(labels) == sorted(noisy.labels) and labels != tuple(noisy.labels) for labels in dealt)


def labels_of(outcomes, seed):
    """By row, of one of the models."""
    own = [one for one in outcomes if (one.seed, one.model) == (seed, outcomes[0].model)]
    pairs = [pair for one in own for pair in zip(one.rows, one.labels, strict=True)]
    return tuple(label for _, label in sorted(pairs))


def test_the_same_test_finds_a_selection_outside_the_folds(noisy, tmp_path, monkeypatch):
    """The very labels of the test above, and the features chosen on all lesions before these are divided."""

    def leaking(self, seed):
        dealt = self.lesions.shuffled(seed)
        chosen = select_features(dealt.features, dealt.values, dealt.labels, 8)
        return replace(dealt, features=tuple(chosen), values=dealt.columns(chosen))

    monkeypatch.setattr(Study, "dealt", leaking)
    path = write_table(tmp_path / "table.csv", noisy)
    smooth = {f"{name}, all features" for name in ("logistic regression (L2)", "LDA", "SVM")}
    card, _ = evaluate_table(
        plan(path, tmp_path, division={"shuffle_labels": True, "seeds": DEALINGS}),
        [one for one in compared_models() if one.name in smooth],
        quiet,
    )
    assert {model.model for model in card.models} == smooth
    for model in card.models:
        assert model.auc.low > 0.5, model.model


# --- language models ------------------------------------------------------------------------------------------------


def test_the_order_of_the_prompt_matters_to_a_language_model(everything):
    def scores(name):
        return np.concatenate([one.scores for one in everything if one.model == name])

    assert not np.allclose(scores(FROZEN), scores(f"{FROZEN}: shuffled order at test time"))
    assert not np.allclose(scores(LORA), scores(f"{LORA}: shuffled order at test time"))
    assert not np.allclose(scores(FROZEN), scores(f"{FROZEN}: generic feature names"))


def test_without_a_base_model_a_language_model_says_what_it_needs(study, tmp_path):
    with pytest.raises(RadllmError, match="needs a base model: give --base-model"):
        evaluate_models(replace(study, base=None, work=tmp_path), READING, quiet)


# --- tables ---------------------------------------------------------------------------------------------------------


def write_table(path, cohort, split=None):
    head = ["lesion", "patient", "label", *([] if split is None else ["part"]), *cohort.features]
    lines = [",".join(head)]
    for row in range(len(cohort)):
        own = [str(row), cohort.groups[row], str(cohort.labels[row]), *([] if split is None else [split[row]])]
        lines.append(",".join([*own, *map(repr, cohort.values[row].tolist())]))
    path.write_text("\n".join(lines) + "\n")
    return path


def plan(path, tmp_path, *, modality="US", division=(), **changes):
    given = {
        "base": None, "options": OPTIONS, "work": tmp_path / "work", "command": "radllm evaluate",
        "labelled": LabelledTable.of(path, "label", "patient", modality),
        "division": CrossValidation(folds=2, inner_folds=2, seeds=1).model_copy(update=division),
    }  # fmt: skip
    return EvaluationPlan(**{**given, **changes})


def test_a_locked_split_is_kept(tmp_path):
    cohort = lesions(count=60)
    part = ["test" if row % 3 == 0 else "train" for row in range(60)]
    path = write_table(tmp_path / "table.csv", cohort, part)
    card, outcomes = evaluate_table(plan(path, tmp_path, split="part"), compared_models(language=False)[:2], quiet)
    assert all(outcome.rows == list(range(0, 60, 3)) for outcome in outcomes)
    assert card.split == "part"
    assert all(model.auc.value > 0.8 for model in card.models)


@pytest.mark.parametrize(
    ("part", "sentence"),
    [
        (["train"] * 59 + ["maybe"], "'maybe' as 'part' in line 61"),
        (["train"] * 60, "The test part of 'part' in table.csv does not hold both classes"),
        (["test", "train"] * 30, "The training part of 'part' in table.csv does not hold both classes"),
        (["train", "train", "test", "test"] * 15, "Both parts of 'part' in table.csv hold 30 patients"),
    ],
)
def test_a_split_that_is_none_is_refused(tmp_path, part, sentence):
    path = write_table(tmp_path / "table.csv", lesions(count=60, each=2), part)
    with pytest.raises(RadllmError, match=sentence):
        evaluate_table(plan(path, tmp_path, split="part"), compared_models(language=False)[:1], quiet)


def test_a_table_without_a_modality_is_refused(tmp_path):
    path = write_table(tmp_path / "table.csv", lesions(count=60))
    with pytest.raises(RadllmError, match="does not say the modality of its images: give --modality"):
        evaluate_table(plan(path, tmp_path, modality=None), compared_models(language=False)[:1], quiet)


def test_a_damaged_outcome_is_one_sentence(tmp_path):
    path = write_table(tmp_path / "table.csv", lesions(count=60))
    evaluate_table(plan(path, tmp_path), compared_models(language=False)[:1], quiet)
    kept = next((tmp_path / "work").glob("outcome-*.json"))
    kept.write_text(json.dumps({"identity": 3})[:-4])
    with pytest.raises(RadllmError, match="not valid JSON"):
        evaluate_table(plan(path, tmp_path), compared_models(language=False)[:1], quiet)
