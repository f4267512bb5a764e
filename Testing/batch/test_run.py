"""A batch: each lesion once with its result or its reason, and the same numbers as alone."""

from __future__ import annotations

from collections import deque
from concurrent.futures import CancelledError
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest

from Testing.support.batch_cases import candidate, found, kept, plan, read_generated, told

pytest.importorskip("torch")
pytest.importorskip("radiomics")
pytest.importorskip("distributed")
pytest.importorskip("pyarrow")

from radllm_backend import extract
from radllm_backend.batch import cluster as batch_cluster
from radllm_backend.batch import run as batch
from radllm_backend.batch.candidates import Found, Refusal
from radllm_backend.batch.cluster import Place
from radllm_backend.batch.run import Step, _Run, run_batch
from radllm_backend.errors import RadllmError
from radllm_backend.features.table import read_table
from radllm_backend.models.model import Model
from radllm_backend.models.prediction import Prediction

ONE = Place(workers=1, memory="1GB")


@pytest.fixture(scope="module")
def model(tiny_model: Path, tiny_base: Path) -> Model:
    return Model.load(tiny_model, tiny_base)


@pytest.fixture(scope="module")
def failures() -> Found:
    """Twelve lesions of which four fail, each in another way."""
    source = found(12)
    ways = {2: "vanished", 5: "strange", 7: "killed", 9: "greedy"}
    lesions = [candidate(number, ways.get(number, "lesion")) for number in range(12)]
    return source.model_copy(update={"candidates": lesions})


@pytest.fixture(scope="module")
def mixed(model: Model, failures: Found, tmp_path_factory: pytest.TempPathFactory) -> tuple[Path, Any, list[Step]]:
    """A run over them: its folder, its summary and what it told."""
    output, steps = tmp_path_factory.mktemp("batch") / "mixed", []
    return output, run_batch(plan(model, output, failures, command="radllm batch"), steps.append), steps


# --- one run --------------------------------------------------------------------------------------------------------


def test_lesions_that_fail_have_their_reasons_and_stop_nothing(mixed, model: Model) -> None:
    output, summary, steps = mixed
    assert (summary.lesions, summary.done, summary.failed, summary.kept, summary.left_out) == (12, 8, 4, 0, 1)
    assert not summary.stopped
    reasons = {row.segment: row.reason for row in kept(output, model) if row.status == "failed"}
    assert reasons["vanished"] == "seg.dcm is gone: put it back."
    strange = "It cannot be measured (ZeroDivisionError: one part and another in seg.dcm): check its files."
    assert reasons["strange"] == strange
    for way in ("killed", "greedy"):
        assert "was ended, probably for want of memory" in reasons[way]
    rows = [row for step in steps for row in step.rows]
    assert len(rows) == len({row.key for row in rows}) == 12
    assert (steps[-1].settled, steps[-1].total, steps[-1].seconds_left) == (12, 12, 0)


def test_the_folder_holds_tables_and_summary_and_names_no_folder_date_or_patient(mixed) -> None:
    output, _, _ = mixed
    names = {"results.sqlite", "results.csv", "results.parquet", "summary.html"}
    assert {path.name for path in output.iterdir() if not path.name.startswith(".")} == names
    assert len(read_table(output / "results.csv")) == 12
    for name in names:
        content = (output / name).read_bytes()
        for word in (b"Jane", b"/pacs", b"20240229"):
            assert word not in content


def test_a_batch_gives_what_a_lesion_alone_gives(mixed, model: Model) -> None:
    for row in kept(mixed[0], model):
        if row.status == "done":
            assert row.number is not None
            alone = model.predict(extract(read_generated(candidate(row.number)), model.settings))
            assert row.probability == pytest.approx(alone.probability, abs=1e-6)
            assert row.call == alone.call
            assert row.prediction is not None
            assert row.prediction.additive is None


def test_what_is_done_is_not_done_again_and_what_failed_only_on_request(mixed, model: Model, failures: Found) -> None:
    output, _, _ = mixed
    before = told(kept(output, model))
    again = run_batch(plan(model, output, failures))
    assert (again.kept, again.done, again.failed) == (12, 0, 0)
    assert told(kept(output, model)) == before
    mended = failures.model_copy(
        update={
            "candidates": [candidate(one.number, "lesion") for one in failures.candidates if one.number is not None]
        }
    )
    retried = run_batch(plan(model, output, mended, retry=True, place=ONE))
    assert (retried.kept, retried.done, retried.failed) == (8, 4, 0)


@pytest.mark.long
def test_another_model_runs_beside_the_old(mixed, model: Model, self_contained_model: Path, monkeypatch) -> None:
    monkeypatch.setenv("RADLLM_CACHE", str(self_contained_model.parent / "cache"))
    other, output = Model.load(self_contained_model), mixed[0]
    before = len(kept(output, model))
    run = run_batch(plan(other, output, found(3), place=ONE))
    assert (run.kept, run.done) == (0, 3)
    assert (len(kept(output, model)), len(kept(output, other))) == (before, 3)


def test_lesion_reports_and_reasons_on_request(model: Model, tmp_path: Path) -> None:
    run_batch(plan(model, tmp_path / "out", found(2), reports=True, explain=True, place=ONE))
    for row in kept(tmp_path / "out", model):
        folder = tmp_path / "out" / "lesions" / f"{row.key}-{model.sha256[:8]}"
        assert {path.name for path in folder.iterdir()} == {
            "prediction.json",
            "features.csv",
            "report.html",
            "report.pdf",
            "key-image.png",
        }
        prediction = Prediction.model_validate_json((folder / "prediction.json").read_text())
        assert prediction == row.prediction
        assert prediction.additive is not None


def test_lesions_that_were_done_without_what_is_asked_for_now_are_counted(model: Model, tmp_path: Path) -> None:
    run_batch(plan(model, tmp_path / "out", found(1), reports=True, place=ONE))
    run_batch(plan(model, tmp_path / "out", failures_and(found(3)), place=ONE))
    for wanted, incomplete in (({}, 0), ({"reports": True}, 2), ({"explain": True}, 3)):
        again = run_batch(plan(model, tmp_path / "out", failures_and(found(3)), place=ONE, **wanted))
        assert (again.done, again.incomplete) == (0, incomplete)


def failures_and(source: Found) -> Found:
    """One lesion more, which fails."""
    return source.model_copy(update={"candidates": [*source.candidates, candidate(99, "vanished")]})


def test_a_lesion_twice_in_a_source_is_one(model: Model, tmp_path: Path) -> None:
    source = found(2)
    twice = source.model_copy(update={"candidates": [*source.candidates, *source.candidates]})
    assert run_batch(plan(model, tmp_path / "out", twice, place=ONE)).done == 2


# --- what cannot be run ---------------------------------------------------------------------------------------------


def test_nothing_to_classify_is_a_sentence(model: Model, tmp_path: Path) -> None:
    nothing = Found(candidates=[], refusals=[Refusal(what="Series 7", reason="It has no segmentation: draw one.")])
    with pytest.raises(RadllmError, match="1 left out, first Series 7: It has no segmentation: draw one."):
        run_batch(plan(model, tmp_path / "out", nothing))
    assert not (tmp_path / "out").exists()


@pytest.mark.parametrize(
    ("place", "words"),
    [
        (Place(workers=0), "--workers is 0: use 1 or more."),
        (Place(memory="much"), "--memory is 'much': use a size"),
        (Place(memory="1kB"), "--memory is '1kB': use a size"),
        (Place(scheduler="tcp://127.0.0.1:1"), "No Dask scheduler answers at tcp://127.0.0.1:1"),
        (Place(scheduler="nonsense://x"), "No Dask scheduler answers at nonsense://x"),
    ],
)
def test_places_that_cannot_be_are_sentences(
    model: Model, tmp_path: Path, place: Place, words: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(batch_cluster, "_ANSWER_SECONDS", 2)
    with pytest.raises(RadllmError) as caught:
        run_batch(plan(model, tmp_path / "out", found(1), place=place))
    assert words in str(caught.value)
    assert "\n" not in str(caught.value)


# --- a run from inside ----------------------------------------------------------------------------------------------


@pytest.mark.parametrize("problem", [CancelledError(), OSError("stream closed"), KeyError("of a closed client")])
def test_without_a_scheduler_the_run_ends_and_the_lesion_has_no_row(problem: Exception, model, tmp_path) -> None:
    run, _ = a_run_with_one_lesion_under_way(model, tmp_path)

    def result() -> str:
        raise problem

    with pytest.raises(RadllmError, match="scheduler is gone"):
        run._take(SimpleNamespace(status="closed"), SimpleNamespace(key="lesion-1", status="error", result=result))
    assert run.counts.failed == 0


def test_an_answer_that_is_gone_with_its_worker_is_asked_for_again(model, tmp_path) -> None:
    run, lesion = a_run_with_one_lesion_under_way(model, tmp_path)
    run._take(SimpleNamespace(status="running"), SimpleNamespace(key="lesion-1", status="lost"))
    assert (list(run.pending), run._flying, run.counts.failed) == ([lesion], {}, 0)


@pytest.mark.parametrize(("seconds", "given"), [(0.01, 5), (0.25, 4), (0.4, 2), (3.0, 1)])
def test_a_worker_is_given_a_second_s_work_at_a_time_and_less_near_the_end(model, tmp_path, seconds, given) -> None:
    lesions = found(20).candidates
    run = _Run(plan(model, tmp_path, found(20)), None, deque(lesions), lambda step: None)
    run._lesion_seconds = seconds
    taken = [run._next() for _ in range(20)]
    assert len(taken[0]) == given
    assert [len(each) for each in taken] == sorted((len(each) for each in taken), reverse=True)
    assert [lesion for each in taken for lesion in each] == lesions


@pytest.mark.long
def test_lesions_that_a_worker_was_given_with_one_that_ends_it_are_measured_all_the_same(
    model: Model, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(batch, "_WORK_SECONDS", 100)
    source = found(40)
    lesions = [candidate(number, "killed" if number == 2 else "lesion") for number in range(40)]
    source = source.model_copy(update={"candidates": lesions})
    summary = run_batch(plan(model, tmp_path / "out", source))
    assert (summary.done, summary.failed) == (39, 1)
    assert [row.number for row in kept(tmp_path / "out", model) if row.status == "failed"] == [2]


def a_run_with_one_lesion_under_way(model: Model, folder: Path) -> tuple[_Run, Any]:
    """The moment between a worker's answer and its fetching, which no real cluster can be caught in."""
    source = found(1)
    run = _Run(plan(model, folder, source), None, deque(), lambda step: None)
    run._flying["lesion-1"], run._futures["lesion-1"] = [source.candidates[0]], None
    return run, source.candidates[0]
