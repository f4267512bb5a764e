"""A recorded command means what was done: read back by the real command line, it asks for the very same."""

from __future__ import annotations

import shlex
import string
from collections.abc import Iterator
from contextlib import ExitStack, contextmanager
from dataclasses import replace
from pathlib import Path
from unittest import mock

import numpy as np
import pytest

pytest.importorskip("torch")

import typer.main
from hypothesis import given, settings
from hypothesis import strategies as st

from radllm_backend.cli.main import app
from radllm_backend.errors import RadllmError
from radllm_backend.features.table import FeatureTable
from radllm_backend.language.base_models import BaseModelFolder
from radllm_backend.learning import build
from radllm_backend.learning import plan as plans
from radllm_backend.learning.card import command_of, inherited
from radllm_backend.learning.methods import METHODS, bundled_methods
from radllm_backend.learning.options import DEFAULT_BASE, INHERITED, CrossValidation, TrainingOptions
from radllm_backend.learning.plan import EvaluationPlan, LabelledTable, TrainingPlan
from radllm_backend.models.bundle import AdapterReference, Bundle, read_bundle
from radllm_backend.models.shipped import shipped_models
from radllm_backend.records import MODALITIES
from radllm_backend.reports import evaluate as evaluating
from radllm_backend.reports.evaluate import evaluate
from Testing.support.command_line import radllm
from Testing.support.report_cases import CARD

NOTHING = np.empty((0, 0))
OPTIONS = st.builds(
    TrainingOptions,
    features=st.integers(1, 200),
    selection=st.sampled_from(["mrmr", "filtered", "none"]),
    style=st.sampled_from(["numbers", "findings", "generic"]),
    shuffle_order=st.booleans(),
    scale_free=st.booleans(),
    epochs=st.integers(1, 1000),
    patience=st.integers(1, 1000),
    learning_rate=st.floats(0, 1, exclude_min=True),
    weight_decay=st.floats(0, 10),
    warmup=st.floats(0, 1, exclude_max=True),
    batch_size=st.integers(1, 1000),
    validation=st.floats(0, 0.5, exclude_min=True),
    rank=st.integers(1, 1000),
    alpha=st.integers(1, 1000),
    seed=st.integers(),
    folds=st.integers(0, 100),
)
WORDS = st.text(st.characters(exclude_categories=["Cs"], exclude_characters="\0"), min_size=1, max_size=30)
NAMES = st.text(st.sampled_from(string.ascii_letters + " -'\"$`&;#*é(=@"), max_size=10).map("{}x".format)
MAYBE = st.none() | WORDS


def table(name: str) -> FeatureTable:
    return FeatureTable(name, (), NOTHING, (), NOTHING.astype(str), {}, (), "0" * 64)


def base(name: str, four_bit: bool = False) -> BaseModelFolder:
    """A folder of the user's, or the one that is fetched by its name."""
    origin = "catalogue" if name == DEFAULT_BASE else "folder"
    return BaseModelFolder(name, Path("somewhere") / name, "0" * 64, origin, four_bit=four_bit)


@st.composite
def labelled(draw) -> LabelledTable:
    return LabelledTable(table(draw(NAMES)), draw(WORDS), draw(WORDS), draw(st.none() | st.sampled_from(MODALITIES)))


@st.composite
def trainings(draw) -> TrainingPlan:
    return TrainingPlan(
        labelled=draw(labelled()),
        base=base(draw(st.just(DEFAULT_BASE) | NAMES), draw(st.booleans())),
        options=draw(OPTIONS),
        output=Path("somewhere") / draw(NAMES),
        method=draw(st.sampled_from(bundled_methods())),
        settings=draw(st.sampled_from([None, "mammography", Path("somewhere/own.yaml")])),
        description=draw(st.just("") | WORDS),
        by=draw(MAYBE),
        evaluations=tuple(Path("somewhere", *parts) for parts in draw(st.lists(st.tuples(NAMES, NAMES), max_size=2))),
    )


@st.composite
def continuations(draw) -> TrainingPlan:
    """Of a model that is continued, the name of its base model among those that commands leave out or not."""
    plan = draw(trainings())
    origin = CARD.model_copy(
        update={
            "name": draw(NAMES),
            "base": CARD.base.model_copy(
                update={"name": draw(st.sampled_from([DEFAULT_BASE, plan.base.public_name, "other"]))}
            ),
            "adapter": AdapterReference(rank=draw(st.integers(1, 64)), alpha=draw(st.integers(1, 64))),
            "method": METHODS[draw(st.sampled_from(["lora", "fusion-lora"]))].title,
            "style": draw(st.sampled_from(["numbers", "generic"])),
        }
    )
    bundle = Bundle(Path("somewhere"), origin, "0" * 64)
    name = next(name for name, method in METHODS.items() if method.title == origin.method)
    options = plan.options.model_copy(update=inherited(bundle))
    return replace(plan, origin=bundle, method=name, options=options, by=None, evaluations=())


@contextmanager
def caught(plan: TrainingPlan | EvaluationPlan) -> Iterator[list[tuple]]:
    """What is asked for, before anything is done; table, base model and model to continue are those of a plan."""
    asked: list[tuple] = []

    def stop(*given):
        asked.append(given)
        raise RadllmError("That is all.")

    def found(name):
        assert str(name) == plan.base.public_name
        return replace(plan.base, four_bit=False)

    def read(path):
        assert Path(path).name == plan.labelled.table.name
        return plan.labelled.table

    with ExitStack() as stack:
        for owner, name, instead in (
            (plans, "locate", found),
            (plans, "in_four_bits", lambda known: replace(known, four_bit=True)),
            (plans, "read_table", read),
            (build, "read_bundle", lambda _: plan.origin),
            (build, "build_bundle", stop),
            (evaluating, "evaluate_table", stop),
        ):
            stack.enter_context(mock.patch.object(owner, name, instead))
        yield asked


def asked_for(command: str, plan: TrainingPlan) -> TrainingPlan:
    """What a command asks for."""
    with caught(plan) as asked:
        finished = radllm(*shlex.split(command)[1:])
    assert finished.error == "radllm: That is all.\n"
    return asked[0][0]


def without_folders(plan: TrainingPlan) -> TrainingPlan:
    """As the command can say it: each path by its last part, an evaluation by its last two."""
    return replace(
        plan,
        output=Path(plan.output.name),
        settings=Path(plan.settings).name if plan.settings else None,
        evaluations=tuple(Path(*path.parts[-2:]) for path in plan.evaluations),
    )


@settings(deadline=None)
@given(trainings())
def test_the_command_of_a_training_asks_for_the_very_training(plan):
    command = command_of(plan)
    assert command.startswith("radllm train ")
    assert "somewhere" not in command
    assert asked_for(command, plan) == without_folders(plan)


@settings(deadline=None)
@given(continuations())
def test_the_command_of_a_continued_training_asks_for_the_very_training(plan):
    command = command_of(plan)
    assert command.startswith("radllm adapt ")
    assert asked_for(command, plan) == without_folders(plan)


@pytest.mark.parametrize("name", shipped_models())
def test_a_shipped_card_was_trained_with_what_its_command_means_today(name):
    """A default that changes would change what the command of an older card means: here it shows."""
    card = read_bundle(name).card
    file, target, group = (shlex.split(card.training.command)[place] for place in (2, 4, 6))
    plan = TrainingPlan(
        labelled=LabelledTable(table(file), target, group),
        base=BaseModelFolder(card.base.name, Path("somewhere"), card.base.sha256, "catalogue"),
        options=TrainingOptions(),
        output=Path(name),
    )
    asked = asked_for(card.training.command, plan)
    # What a card of an older version does not know was as usual.
    assert asked.options.model_dump() == {**TrainingOptions().model_dump(), **card.training.options}
    assert METHODS[asked.method].title == card.method
    assert asked.description == card.training.description
    assert asked.labelled.given_modality in (None, card.modality)
    assert len(asked.evaluations) == len(card.evaluations)
    assert bool(asked.by) == bool(card.subgroups)
    assert command_of(asked) == card.training.command


@settings(deadline=None, max_examples=50)
@given(
    labelled(),
    OPTIONS,
    st.builds(
        CrossValidation,
        folds=st.integers(1, 20),
        inner_folds=st.integers(1, 20),
        seeds=st.integers(1, 20),
        trained_seeds=st.integers(1, 20),
        shuffle_labels=st.booleans(),
    ),
    st.sampled_from([DEFAULT_BASE, "tiny"]),
    st.fixed_dictionaries(
        {
            "families": st.lists(st.sampled_from(["frozen", "lora", "fusion", "ablation"]), unique=True),
            "split": MAYBE,
            **{name: st.booleans() for name in ("four_bit", "language", "lora", "ablations", "costly")},
        }
    ),
)
def test_the_command_of_an_evaluation_asks_for_the_very_evaluation(labels, options, division, base_name, chosen):
    """Of one that Python asked for, and that was given no command."""
    options = options.model_copy(update={"folds": TrainingOptions().folds})
    plan = EvaluationPlan(
        base=base(base_name), options=options, work=Path("out/work"), labelled=labels, command="", division=division
    )
    more = {**options.model_dump(exclude={"folds"}), **division.model_dump(), "modality": labels.given_modality}
    with caught(plan) as asked:
        with pytest.raises(RadllmError, match="That is all"):
            evaluate(labels.table, labels.target, labels.group, "out", base_model=base_name, **chosen, **more)
        first = asked[0][0]
        radllm(*shlex.split(first.command)[1:])
    again = asked[1][0]
    assert (first.options, first.division, first.split) == (options, division, chosen["split"])
    assert bool(first.base) == chosen["language"]
    assert replace(again, command=first.command) == first
    assert [model.name for model in asked[1][1]] == [model.name for model in asked[0][1]]


def test_every_training_option_is_a_flag_as_it_was_declared():
    commands = typer.main.get_command(app).commands
    flags = {option.name: option for option in commands["train"].params}
    for name, field in TrainingOptions.model_fields.items():
        assert flags[name].opts == [f"--{name.replace('_', '-')}"]
        assert flags[name].default == field.default
        assert flags[name].help == field.description
    offered = {option.name for option in commands["adapt"].params}
    assert set(TrainingOptions.model_fields) - offered == set(INHERITED)
