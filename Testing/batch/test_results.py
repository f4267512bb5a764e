"""The file of a batch's results: each lesion once, nothing lost, and every bad file in a sentence."""

from __future__ import annotations

import re
import sqlite3
from collections.abc import Callable
from contextlib import closing
from pathlib import Path
from typing import Any

import pytest

from radllm_backend.batch import results as batch_results
from radllm_backend.batch.candidates import Candidate
from radllm_backend.batch.results import BINS, Counts, Overview, Results, Row, open_results, reading_of, title_of
from radllm_backend.errors import RadllmError
from radllm_backend.models.prediction import Additive
from Testing.batch.rows import OF_RUN, failed, row
from Testing.support.batch_cases import candidate
from Testing.support.report_cases import prediction


@pytest.fixture
def file(tmp_path: Path) -> Path:
    return tmp_path / "results.sqlite"


def problem(file: Path) -> str:
    """What opening it says: one sentence."""
    with pytest.raises(RadllmError) as caught, open_results(file):
        pass
    sentence = str(caught.value)
    assert sentence.endswith(".")
    assert "\n" not in sentence
    return sentence


# --- rows -----------------------------------------------------------------------------------------------------------


def test_rows_come_back_as_they_were(file: Path) -> None:
    rows = sorted([row(1), failed(2), row(3)], key=lambda one: one.key)
    with open_results(file) as results:
        results.add(rows)
    with open_results(file) as results:
        assert list(results.rows(*OF_RUN)) == rows
        assert results.counts(*OF_RUN) == Counts(done=2, failed=1)


def test_a_lesion_has_one_row_for_each_model_and_settings(file: Path) -> None:
    with open_results(file) as results:
        results.add([failed(1), row(2)])
        results.add([row(1)])
        results.add([row(1, settings_sha256="d" * 64), row(1, model_sha256="e" * 64)])
        assert results.counts(*OF_RUN) == Counts(done=2, failed=0)
        assert results.counts("d" * 64, OF_RUN[1]) == Counts(done=1, failed=0)
    assert sqlite3.connect(file).execute("SELECT COUNT(*) FROM results").fetchone() == (4,)


def test_what_is_settled(file: Path) -> None:
    with open_results(file) as results:
        results.add([row(1), failed(2)])
        given = [(number, retry) for number in (1, 2, 3) for retry in (False, True)]
        settled = [results.is_settled(candidate(number), *OF_RUN, retry=retry) for number, retry in given]
        assert settled == [True, True, True, False, False, False]
        assert not results.is_settled(candidate(1), "d" * 64, OF_RUN[1], retry=False)


def test_another_spacing_in_a_manifest_is_another_lesion_in_its_place(file: Path) -> None:
    old = Candidate(kind="mask", image=("/a/i.png",), segmentation="/a/m.png", series="s", source="m", spacing="0.1")
    new = old.model_copy(update={"spacing": "0.2"})
    with open_results(file) as results:
        results.add([row(1, key=old.key, reading=reading_of(old))])
        assert results.is_settled(old, *OF_RUN, retry=False)
        assert not results.is_settled(new, *OF_RUN, retry=False)
        results.add([row(1, key=new.key, reading=reading_of(new))])
        assert results.counts(*OF_RUN).done == 1


def test_titles_name_no_folder() -> None:
    masks = Candidate(kind="mask", image=("/a/i.png",), segmentation="/a/m.png", series="s", source="m", number=3)
    assert title_of(masks) == "m.png: 3"
    assert title_of(candidate(1)) == "Generated: lesion"


def test_rows_of_a_failed_transaction_are_not_there(file: Path) -> None:
    with open_results(file) as results:
        results.add([row(1)])
        results._connection.execute("PRAGMA max_page_count = 8")
        with pytest.raises(RadllmError, match="disk of .* is full: free some space, and give the same command again"):
            results.add([row(number) for number in range(2, 40)])
        results._connection.execute("PRAGMA max_page_count = 100000")
        assert results.counts(*OF_RUN).done == 1
        results.add([row(2)])
        assert results.counts(*OF_RUN).done == 2


# --- what all rows say together -------------------------------------------------------------------------------------


def test_only_a_lesion_whose_prediction_says_why_is_explained(file: Path) -> None:
    why = Additive(baseline=-0.4, baseline_probability=0.401, error=0.034)
    with open_results(file) as results:
        results.add([row(1), row(2, prediction=prediction(additive=why)), failed(3), row(4, model_sha256="e" * 64)])
        assert results.explained(*OF_RUN) == {candidate(1).key: False, candidate(2).key: True}


def test_rows_of_a_run_come_in_the_order_of_their_keys_and_no_others(file: Path) -> None:
    with open_results(file) as results:
        results.add([row(number) for number in range(150)])
        results.add([row(200, model_sha256="e" * 64), row(201, settings_sha256="d" * 64)])
        keys = [one.key for one in results.rows(*OF_RUN)]
    assert keys == sorted(candidate(number).key for number in range(150))


def test_the_overview_counts_every_lesion_of_the_run(file: Path) -> None:
    calls = ("likely benign", "uncertain", "likely malignant")
    done = {0: 0.0, 1: 0.0499, 2: 0.05, 3: 0.95, 4: 1.0, 5: 0.5, 6: 0.51}
    with open_results(file) as results:
        results.add(
            [
                row(
                    number,
                    probability=probability,
                    call=calls[1 if number < 3 else 2 * (number < 6)],
                    modality="MG" if number == 6 else "US",
                    cautions=("few-pixels", "a") if number == 6 else ("few-pixels", "c"),
                )
                for number, probability in done.items()
            ]
        )
        results.add([failed(8, "Second.", lesion="b"), failed(9, "First.", lesion="a"), failed(7, "No.", lesion="c")])
        results.add([row(20, settings_sha256="d" * 64), failed(21, model_sha256="e" * 64)])
        overview = results.overview(*OF_RUN, most_failures=2)
        assert results.overview("d" * 64, OF_RUN[1], 2).counts == Counts(done=1, failed=0)
    assert overview.counts == Counts(done=7, failed=3)
    assert list(overview.calls.items()) == [("likely malignant", 3), ("uncertain", 3), ("likely benign", 1)]
    assert list(overview.cautions.items()) == [("few-pixels", 7), ("c", 6), ("a", 1)]
    assert list(overview.probabilities) == ["MG", "US"]
    assert {part: many for part, many in enumerate(overview.probabilities["US"]) if many} == {0: 2, 1: 1, 10: 1, 19: 2}
    assert [part for part, many in enumerate(overview.probabilities["MG"]) if many] == [10]
    assert {len(parts) for parts in overview.probabilities.values()} == {BINS} == {20}
    assert overview.failures == [("a", candidate(9).key, "First."), ("b", candidate(8).key, "Second.")]
    assert overview.example is not None
    assert overview.example.versions == prediction().versions


def test_the_overview_of_nothing_and_of_failures_alone(file: Path) -> None:
    with open_results(file) as results:
        nothing = results.overview(*OF_RUN, most_failures=5)
        results.add([failed(1)])
        failures = results.overview(*OF_RUN, most_failures=5)
    assert nothing == Overview(
        counts=Counts(done=0, failed=0), calls={}, cautions={}, probabilities={}, failures=[], example=None
    )
    assert (failures.counts, failures.calls, failures.example) == (Counts(done=0, failed=1), {}, None)


# --- words ----------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("words", "title"),
    [
        ({}, "Generated: lesion"),
        ({"segment": ""}, "Generated: 1"),
        ({"segment": "", "number": None}, "Generated"),
        ({"series_description": ""}, "US: lesion"),
        ({"series_description": "", "modality": ""}, "SEG: lesion"),
        ({"kind": "mask"}, "seg.dcm: lesion"),
        ({"kind": "mask", "segment": "", "number": 0}, "seg.dcm: 0"),
        ({"kind": "mask", "segment": "", "number": None}, "seg.dcm"),
    ],
)
def test_the_title_of_a_lesion(words: dict[str, Any], title: str) -> None:
    assert title_of(candidate(1).model_copy(update=words)) == title


def test_what_the_values_of_a_mask_hang_on_beside_its_content() -> None:
    mask = candidate(1).model_copy(update={"kind": "mask", "spacing": "0.1"})
    assert reading_of(mask) == "US 0.1"
    assert reading_of(mask.model_copy(update={"modality": ""})) == "0.1"
    assert reading_of(mask.model_copy(update={"spacing": ""})) == "US"
    assert reading_of(candidate(1).model_copy(update={"spacing": "0.1"})) == ""


# --- one sentence for whatever goes wrong ---------------------------------------------------------------------------

ASKED: dict[str, Callable[[Results], Any]] = {
    "add": lambda results: results.add([row(1)]),
    "is_settled": lambda results: results.is_settled(candidate(1), *OF_RUN, retry=False),
    "explained": lambda results: results.explained(*OF_RUN),
    "rows": lambda results: list(results.rows(*OF_RUN)),
    "counts": lambda results: results.counts(*OF_RUN),
    "overview": lambda results: results.overview(*OF_RUN, 1),
    "cautions": lambda results: results._caution_counts(*OF_RUN),
    "histograms": lambda results: results._histograms(*OF_RUN),
}


@pytest.mark.parametrize("what", ASKED)
def test_whatever_is_asked_of_a_closed_file_is_refused_with_its_name(file: Path, what: str) -> None:
    with open_results(file) as results:
        pass
    with pytest.raises(RadllmError) as caught:
        ASKED[what](results)
    assert str(caught.value) == (
        f"{file} cannot be read or written (Cannot operate on a closed database.): check the disk, or give another "
        "output folder."
    )


@pytest.mark.parametrize(
    ("name", "sentence"),
    [
        ("SQLITE_BUSY", "Another program holds {}: close it there, and give the same command again."),
        ("SQLITE_LOCKED_SHAREDCACHE", "Another program holds {}: close it there, and give the same command again."),
        (
            "SQLITE_FULL",
            "The disk of {} is full: free some space, and give the same command again; what is done is kept.",
        ),
        ("SQLITE_NOTADB", "{} is damaged: move it away, or give another output folder."),
        ("SQLITE_CORRUPT_INDEX", "{} is damaged: move it away, or give another output folder."),
        ("SQLITE_IOERR", "{} cannot be read or written (what it says): check the disk, or give another output folder."),
    ],
)
def test_what_sqlite_raises_as_one_sentence(file: Path, name: str, sentence: str) -> None:
    """Also what no test can bring about, such as a disk that fails."""
    error = sqlite3.OperationalError("what it says")
    error.sqlite_errorname = name
    with open_results(file) as results:
        results._connection.close()
        results._connection = Raises(error)  # type: ignore[assignment]
        with pytest.raises(RadllmError) as caught:
            results.counts(*OF_RUN)
        assert str(caught.value) == sentence.format(file)
        assert caught.value.__cause__ is error


class Raises:
    """A connection that fails whatever it is asked."""

    def __init__(self, error: sqlite3.Error) -> None:
        self.error = error

    def execute(self, *given: object) -> None:
        raise self.error

    def close(self) -> None:
        pass


# --- files that cannot be opened ------------------------------------------------------------------------------------


def test_a_new_file_says_what_it_is_and_keeps_whole_transactions(file: Path) -> None:
    with open_results(file) as results:
        asked = {
            name: results._connection.execute(f"PRAGMA {name}").fetchone()[0]
            for name in ("application_id", "user_version", "journal_mode", "synchronous", "busy_timeout")
        }
        assert results.path == file
    expected = {"application_id": 0x5241444C, "user_version": 1, "journal_mode": "wal", "synchronous": 1}
    assert asked == {**expected, "busy_timeout": 10_000}
    columns = [name for _, name, *_ in sqlite3.connect(file).execute("PRAGMA table_info(results)")]
    assert columns == list(Row.model_fields)


def test_an_empty_file_becomes_one_of_these(file: Path) -> None:
    file.touch()
    with open_results(file) as results:
        results.add([row(1)])
    with open_results(file) as results:
        assert results.counts(*OF_RUN).done == 1


def test_the_sentences_about_a_file_that_cannot_be_opened(file: Path) -> None:
    with open_results(file):
        expected = f"Another radllm batch writes {file}: wait until it is done, or give another output folder."
        assert problem(file) == expected
    with closing(sqlite3.connect(file)) as connection:
        connection.execute("PRAGMA user_version = 99")
    assert problem(file) == (
        f"{file} is of version 99 and this radllm writes version 1: give another output folder, or use the radllm that "
        "wrote it."
    )
    with closing(sqlite3.connect(file)) as connection:
        connection.execute("PRAGMA application_id = 7")
    assert problem(file) == f"{file} is not a file of radllm batch: move it away, or give another output folder."
    gone = file.parent / "absent" / "results.sqlite"
    (file.parent / "absent").write_text("in the way")
    assert re.fullmatch(
        re.escape(str(gone)) + r" cannot be written \([A-Z][\w ]+\): choose another output folder\.", problem(gone)
    )


def test_a_file_of_another_version(file: Path) -> None:
    with open_results(file):
        pass
    connection = sqlite3.connect(file)
    connection.execute("PRAGMA user_version = 99")
    connection.close()
    assert "is of version 99 and this radllm writes version 1" in problem(file)


def test_somebody_elses_file(file: Path) -> None:
    connection = sqlite3.connect(file)
    connection.execute("CREATE TABLE recipes (cake)")
    connection.close()
    assert "is not a file of radllm batch" in problem(file)


@pytest.mark.parametrize("spoil", ["text", "middle"])
def test_a_damaged_file(file: Path, spoil: str) -> None:
    with open_results(file) as results:
        results.add([row(number) for number in range(40)])
    content = file.read_bytes()
    file.write_bytes(b"no database " * 99 if spoil == "text" else content[:4096] + b"\xff" * 12000 + content[16096:])
    assert problem(file) == f"{file} is damaged: move it away, or give another output folder."


def test_a_second_batch_waits_for_the_first(file: Path) -> None:
    with open_results(file):
        assert problem(file).startswith("Another radllm batch writes ")
    with open_results(file):
        pass


def test_a_file_that_another_program_holds(file: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(batch_results, "_PATIENCE", 0.1)
    with open_results(file) as results:
        other = sqlite3.connect(file)
        other.execute("BEGIN IMMEDIATE")
        with pytest.raises(RadllmError, match="Another program holds .*: close it there"):
            results.add([row(1)])
        other.close()
        results.add([row(1)])


def test_a_place_that_cannot_be_written(tmp_path: Path) -> None:
    (tmp_path / "results.sqlite").mkdir()
    said = problem(tmp_path / "results.sqlite")
    assert "cannot be" in said
    assert said.startswith(f"{tmp_path / 'results.sqlite'} ")
