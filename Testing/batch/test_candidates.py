"""What a lesion is recognised by: by all that tells it from another, and by nothing else."""

from __future__ import annotations

import hashlib
from itertools import combinations
from typing import Any

import pytest
from pydantic import ValidationError

from radllm_backend.batch.candidates import Candidate, Found, Refusal
from Testing.support.batch_cases import candidate

SEG = candidate(1)
MASK = SEG.model_copy(update={"kind": "mask"})


def changed(given: Candidate, **words: Any) -> str:
    return given.model_copy(update=words).key


# --- of DICOM -------------------------------------------------------------------------------------------------------


def test_two_readers_segmentations_of_one_series_are_two_lesions() -> None:
    """The same series, number and name: all that tells them apart is the file that each reader made."""
    readers = [SEG.model_copy(update={"source": source, "segmentation": f"/{source}.dcm"}) for source in ("1.7", "1.8")]
    assert readers[0].key != readers[1].key


@pytest.mark.parametrize("own", [{"kind": "RTSTRUCT"}, {"series": "1.2.9"}, {"source": "1.2.9"}, {"number": 2}])
def test_each_of_its_marks_makes_another_lesion(own: dict[str, Any]) -> None:
    assert changed(SEG, **own) != SEG.key


@pytest.mark.parametrize(
    "other",
    [
        {"segment": "renamed"},
        {"segmentation": "/elsewhere/seg.dcm"},
        {"image": ("/elsewhere/1.dcm",)},
        {"modality": "MG"},
        {"series_description": "renamed"},
        {"study_description": "renamed"},
        {"study_date": "20240301"},
        {"spacing": "0.1"},
    ],
)
def test_names_and_places_make_no_other_lesion(other: dict[str, Any]) -> None:
    assert changed(SEG, **other) == SEG.key


# --- of mask files --------------------------------------------------------------------------------------------------


def test_of_a_mask_the_segment_may_be_all_that_is_given() -> None:
    choices: list[dict[str, Any]] = [
        {"number": number, "segment": segment} for number in (None, 1, 2) for segment in ("", "a", "b")
    ]
    keys = [changed(MASK, **choice) for choice in choices]
    assert all(one != other for one, other in combinations(keys, 2))


def test_a_masks_folder_and_spacing_make_no_other_lesion() -> None:
    assert changed(MASK, segmentation="/elsewhere/m.png", image=("/elsewhere/i.png",), spacing="0.2") == MASK.key


# --- its form -------------------------------------------------------------------------------------------------------


def test_results_of_earlier_batches_are_found_again() -> None:
    """The key is kept in files: another rule would measure every lesion anew."""
    for given, words in (
        (SEG, "SEG\n1.2.3\n1.2.4\n1"),
        (MASK, "mask\n1.2.3\n1.2.4\n1\nlesion"),
        (MASK.model_copy(update={"number": None, "segment": ""}), "mask\n1.2.3\n1.2.4\nNone"),
    ):
        assert given.key == hashlib.sha256(words.encode()).hexdigest()[:32]


@pytest.mark.parametrize("date", ["2024-02-29", "2024022", "202402290", "yesterday"])
def test_a_date_is_eight_digits_or_nothing(date: str) -> None:
    assert Candidate.model_validate({**dict(SEG), "study_date": ""}).study_date == ""
    with pytest.raises(ValidationError, match="study_date"):
        Candidate.model_validate({**dict(SEG), "study_date": date})


def test_only_a_seg_a_structure_set_or_a_mask_marks_a_lesion() -> None:
    with pytest.raises(ValidationError, match="kind"):
        Candidate.model_validate({**dict(SEG), "kind": "PR"})


def test_what_is_found_says_nothing_of_series_that_nobody_segmented_unless_there_are_some() -> None:
    assert Found(candidates=[SEG], refusals=[]).unsegmented == []
    assert Refusal(what="a", reason="b").modality == ""
