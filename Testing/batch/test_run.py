"""A batch: each lesion once with its result or its reason, the same numbers as alone; and its command."""

from __future__ import annotations

import json
from collections import deque
from concurrent.futures import CancelledError
from dataclasses import replace
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import numpy as np
import pytest

from Testing.support.batch_cases import candidate, found, kept, plan, read_generated, told
from Testing.support.command_line import radllm, succeed

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
from radllm_backend.batch.scoring import MeasuredLesion, scored
from radllm_backend.batch.worker import measure_lesions, settings_text
from radllm_backend.errors import RadllmError
from radllm_backend.features.table import read_table
from radllm_backend.models.model import Model
from radllm_backend.models.prediction import Prediction
from radllm_backend.server.client import Client, ServerError

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


# --- scoring --------------------------------------------------------------------------------------------------------


class Stub:
    """A model that cannot read some lesions."""

    def __init__(self, model: Model, problem: Exception) -> None:
        self.sha256, self.identity, self.settings = model.sha256, model.identity, model.settings
        self._model, self._problem = model, problem

    def predict_many(self, lesions, *, explain):
        if any(lesion.values["spoilt"] for lesion in lesions):
            raise self._problem
        return self._model.predict_many(lesions, explain=explain)


def ready(model: Model, *spoilt: bool) -> list[MeasuredLesion]:
    features = extract(read_generated(candidate(0)), model.settings)
    return [
        MeasuredLesion(
            candidate(number),
            features.model_copy(update={"values": {**features.values, "spoilt": float(bad)}}),
            seconds=0,
            since=0,
        )
        for number, bad in enumerate(spoilt)
    ]


@pytest.mark.parametrize(
    "error", [RadllmError("Nothing can be read."), MemoryError(), ServerError("malformed", "Bad.")]
)
def test_a_lesion_that_the_model_cannot_read_fails_alone(model: Model, tmp_path: Path, error: Exception) -> None:
    rows = scored(plan(Stub(model, error), tmp_path, found(1)), ready(model, False, True, False))  # type: ignore[arg-type]
    assert [row.status for row in rows] == ["done", "failed", "done"]
    assert rows[1].reason
    assert rows[1].features is not None


def test_a_server_that_is_gone_ends_the_run(model: Model, tmp_path: Path) -> None:
    gone = Stub(model, ServerError("unreachable", "The server does not answer: start it."))
    with pytest.raises(ServerError, match="does not answer"):
        scored(plan(gone, tmp_path, found(1)), ready(model, True))  # type: ignore[arg-type]


def measured(settings: str, reader: str) -> dict[str, Any]:
    (answer,) = measure_lesions([candidate(1).model_dump_json()], settings, reader)
    return dict(json.loads(answer))


def test_what_a_worker_gives_is_text_and_raises_nothing(model: Model) -> None:
    settings = settings_text(model.settings)
    good = measured(settings, "Testing.support.batch_cases:read_generated")
    assert good["features"]["values"]
    assert good["reason"] == ""
    for reader in ("Testing.support.batch_cases:no_such", "no_such_module:read", "Testing.support.batch_cases"):
        bad = measured(settings, reader)
        assert bad["features"] is None
        assert bad["reason"].startswith("It cannot be measured (")


@pytest.mark.long
def test_a_server_scores_as_the_model_does(tiny_server, model: Model, tmp_path: Path) -> None:
    remote = Client(tiny_server.ready.url, token_file=tiny_server.ready.token_file).model(model.name)
    by_server = plan(model, tmp_path / "server", found(6), place=ONE)
    run_batch(plan(model, tmp_path / "here", found(6), place=ONE))
    summary = run_batch(replace(by_server, model=remote, card=None))
    assert summary.done == 6
    here, there = ({row.key: row.probability for row in kept(tmp_path / name, model)} for name in ("here", "server"))
    assert there == pytest.approx(here, abs=1e-6)


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


# --- the command ----------------------------------------------------------------------------------------------------


@pytest.fixture
def command(phantom_folder: Path, tiny_model: Path, tiny_base: Path) -> list[object]:
    return ["batch", "--manifest", phantom_folder / "manifest.csv", "--model", tiny_model, "--base-model", tiny_base]


def test_the_command_classifies_a_manifest_as_classify_does(command, phantom_folder, tmp_path: Path) -> None:
    finished = succeed(*command, "-o", tmp_path / "out", "--workers", 2, "--json-lines")
    lines = [json.loads(line) for line in finished.output.splitlines()]
    assert [line["event"] for line in lines] == ["lesion"] * 24 + ["summary"]
    assert (lines[-1]["done"], lines[-1]["failed"]) == (24, 0)
    one = next(line for line in lines if line.get("lesion") == "3_mask.png")
    lesion = (phantom_folder / "3.png", phantom_folder / "3_mask.png", "--modality", "US", "--spacing", "0.08")
    succeed("classify", *lesion, *command[3:], "-o", tmp_path / "single")
    single = json.loads((tmp_path / "single" / "prediction.json").read_text())
    assert one["probability"] == pytest.approx(single["probability"], abs=1e-6)
    assert one["call"] == single["call"]
    again = succeed(*command, "-o", tmp_path / "out")
    assert "24 lesions: 0 classified now, 0 failed, 24 kept from before; 0 left out." in again.output
    assert again.error == ""
    silent = succeed(*command, "-o", tmp_path / "out", "--quiet", "--reports")
    assert silent.output == ""
    assert silent.error.startswith("radllm: 24 of the lesions kept from before have none of the reports or reasons")
    assert succeed(*command, "-o", tmp_path / "out", "--quiet").output == ""


def test_a_list_needs_no_model_and_says_why_not(phantom_folder: Path, tmp_path: Path) -> None:
    lines = (phantom_folder / "manifest.csv").read_text().splitlines()[:3]
    gone = "gone,no.png,no_mask.png,0.08,US,benign,p"
    manifest = phantom_folder / "some.csv"
    manifest.write_text("\n".join([*lines, gone]) + "\n")
    shown = succeed("batch", "--manifest", manifest, "--list")
    assert "2 lesions would run, 1 things would not." in shown.output
    told_lines = succeed("batch", "--manifest", manifest, "--list", "--json-lines").output.splitlines()
    events = [json.loads(line) for line in told_lines]
    assert [event["event"] for event in events] == ["candidate", "candidate", "left-out"]
    assert events[2]["reason"]
    assert str(phantom_folder) not in "".join(told_lines[:2])


def test_a_list_names_some_series_without_a_segmentation_and_counts_the_others(tmp_path: Path) -> None:
    pytest.importorskip("highdicom")
    from Testing.support.dicom_databases import study_of, write_picture

    for number in range(23):
        write_picture(tmp_path / f"{number}.dcm", "US", (4, 4), study_of(f"Study {number}"))
    shown = succeed("batch", "--dicom-folder", tmp_path, "--list")
    assert "0 lesions would run, 0 things would not.\n23 image series have no segmentation.\n" in shown.output
    lines = succeed("batch", "--dicom-folder", tmp_path, "--list", "--json-lines").output.splitlines()
    events = [json.loads(line) for line in lines]
    assert [event["event"] for event in events] == ["unsegmented"] * 21
    assert len({event["what"] for event in events}) == 21
    assert events[0]["reason"] == "It has no segmentation: segment it in Slicer, or leave it."
    assert events[-1]["what"] == "3 more image series"


@pytest.mark.parametrize(
    ("arguments", "words"),
    [
        (["--manifest", "m.csv", "--quiet", "--json-lines"], "--quiet and --json-lines were given: give one of them."),
        (["--manifest", "m.csv"], "A batch needs --model NAME and -o OUT"),
        (["--list"], "Where the lesions are is given 0 times"),
        (["--list", "--manifest", "m.csv", "--dicom-folder", "d"], "Where the lesions are is given 2 times"),
        (["--list", "--manifest", "m.csv"], "There is no table m.csv"),
        (["--list", "--dicom-folder", "d", "--after", "soon"], "'soon' is no date"),
        (["-o", "o", "--model", "m", "--scheduler", "tcp://a:1", "--workers", "2"], "leave them out with --scheduler"),
        (["-o", "o", "--model", "m", "--workers", "0"], "--workers is 0: use 1 or more."),
    ],
)
def test_bad_commands_are_sentences(arguments: list[str], words: str, tmp_path: Path, monkeypatch) -> None:
    monkeypatch.chdir(tmp_path)
    finished = radllm("batch", *arguments)
    assert finished.code != 0
    assert words in finished.error
    assert finished.error.count("\n") == 1


@pytest.mark.parametrize(
    ("arguments", "words"),
    [
        (["--token-file", "t"], "--token-file is for --server: give both or neither."),
        (["--certificate", "c.pem"], "--certificate is for --server: give both or neither."),
        (["--server", "https://server.example", "--certificate", "c.pem"], "c.pem holds no certificate in PEM form"),
        (["--server", "http://server.example"], "is another machine without encryption"),
        (["--server", "http://127.0.0.1:1", "--base-model", "b"], "leave it out with --server"),
    ],
)
def test_options_of_a_server_that_do_not_fit_are_sentences(
    arguments: list[str], words: str, phantom_folder: Path, tmp_path: Path, monkeypatch
) -> None:
    monkeypatch.chdir(tmp_path)
    (tmp_path / "c.pem").write_text("nothing")
    given = ("--manifest", phantom_folder / "manifest.csv", "--model", "tiny", "-o", "out")
    finished = radllm("batch", *given, *arguments)
    assert finished.code != 0
    assert words in finished.error
    assert finished.error.count("\n") == 1


def test_a_dicom_folder_to_results_that_name_no_patient(tiny_model: Path, tiny_base: Path, tmp_path: Path) -> None:
    pytest.importorskip("highdicom")
    from Testing.support.dicom_databases import PATIENT, study_of, write_picture, write_seg

    study, folder, output = study_of(), tmp_path / PATIENT["PatientID"], tmp_path / "out"
    mask = np.zeros((60, 60), np.uint8)
    mask[20:40, 15:45] = 1
    picture = write_picture(folder / "picture.dcm", "US", mask.shape, {**study, "SeriesDescription": "Brust"})
    write_seg(folder / "seg.dcm", picture, {"Herd": mask, "Rand": np.roll(mask, 3, axis=0)})
    given = ("--model", tiny_model, "--base-model", tiny_base, "-o", output, "--workers", 1, "--reports")
    finished = succeed("batch", "--dicom-folder", folder, "--segment", "herd", *given, "--json-lines")
    lesion, summary = map(json.loads, finished.output.splitlines())
    assert (lesion["lesion"], lesion["status"], lesion["modality"]) == ("Brust: Herd", "done", "US")
    assert (summary["done"], summary["failed"]) == (1, 0)
    succeed("batch", "--dicom-folder", folder, *given)
    assert len(list((output / "lesions").iterdir())) == 2
    for path in (path for path in output.rglob("*") if path.is_file()):
        content = path.read_bytes()
        for word in (PATIENT["PatientName"], PATIENT["PatientID"], study["StudyDate"], str(tmp_path)):
            assert word.encode() not in content, path.name


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
