"""``radllm batch``: what it lists, classifies and prints, and what it refuses."""

from __future__ import annotations

import json
from pathlib import Path

import numpy as np
import pytest

from Testing.support.command_line import radllm, succeed

pytest.importorskip("torch")
pytest.importorskip("radiomics")
pytest.importorskip("distributed")
pytest.importorskip("pyarrow")


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
    assert "2 lesions would run; 1 left out." in shown.output
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
    assert "0 lesions would run; 0 left out.\n23 image series have no segmentation.\n" in shown.output
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
