"""Which image a segmentation belongs to: each rule by itself, with segmentations of a few bytes."""

from __future__ import annotations

from pathlib import Path

import pydicom
import pytest
from pydicom.uid import CTImageStorage

from radllm_backend.batch.candidates import Candidate, Found, Refusal
from radllm_backend.batch.matching import Series, as_day, candidates_among
from Testing.batch.segmentation_headers import drawn, image, item, seg, series, structures, write

IMAGE_ON_SERVER = "Its image, or a part of it, is on a server only: retrieve the series in 3D Slicer."


def reasons(found: Found) -> list[str]:
    return [refusal.reason for refusal in found.refusals]


def only(*among: Series) -> Candidate:
    """The one candidate, where nothing is refused."""
    found = candidates_among(among)
    assert found.refusals == []
    (candidate,) = found.candidates
    return candidate


def reason(*among: Series) -> str:
    """Why the one segment among these is refused."""
    found = candidates_among(among)
    assert found.candidates == []
    (said,) = reasons(found)
    return said


# --- a candidate ----------------------------------------------------------------------------------------------------


def test_a_segment_is_a_candidate_with_the_words_of_its_image(tmp_path: Path) -> None:
    words = {"description": "MLO", "study_description": "Screening", "study_date": "20230107"}
    picture = image(tmp_path, "1", "MG", "1.1", **words)
    file = seg(tmp_path / "s.dcm", [(3, "mass", ["1.1"])])
    assert only(picture, drawn(file, description="by a reader", study_description="other")) == Candidate(
        kind="SEG",
        image=(str(picture.files["1.1"]),),
        segmentation=str(file),
        number=3,
        segment="mass",
        series="1",
        source="s.0",
        modality="MG",
        series_description="MLO",
        study_description="Screening",
        study_date="20230107",
    )


def test_a_region_of_a_structure_set_is_a_candidate(tmp_path: Path) -> None:
    volume = image(tmp_path, "1", "CT", "1.2", "1.1")
    file = structures(tmp_path / "r.dcm", "GTV", ["1.2"], {"1": ["1.1", "1.2"]})
    found = only(volume, series("rt", "RTSTRUCT", {"r.0": file}))
    assert (found.kind, found.number, found.segment, found.source) == ("RTSTRUCT", 7, "GTV", "r.0")
    assert found.image == tuple(sorted(str(one) for one in volume.files.values()))


def test_two_readers_segmentations_of_one_image_are_two_lesions(tmp_path: Path) -> None:
    files = [seg(tmp_path / name, [(1, "a", ["1.1"])]) for name in ("first.dcm", "second.dcm")]
    found = candidates_among([image(tmp_path, "1", "MG", "1.1"), drawn(files[0]), drawn(files[1], uid="seg 2")])
    assert [one.segmentation for one in found.candidates] == [str(file) for file in files]
    assert len({one.key for one in found.candidates}) == 2


def test_studies_come_in_the_order_of_their_dates_and_series_in_that_of_their_uids(tmp_path: Path) -> None:
    picture = image(tmp_path, "1", "MG", "1.1")
    days = {"d": "20240101", "c": "20240301", "b": "20240301", "a": "20240201"}
    among = [
        drawn(seg(tmp_path / f"{uid}.dcm", [(1, "a", ["1.1"])]), uid=uid, study_date=day) for uid, day in days.items()
    ]
    found = candidates_among([picture, *among])
    assert [one.source for one in found.candidates] == ["d.0", "a.0", "b.0", "c.0"]


def test_files_of_a_series_come_in_the_order_of_their_uids(tmp_path: Path) -> None:
    among = drawn(*(seg(tmp_path / f"{name}.dcm", [(1, "a", ["1.1"])]) for name in "bca"))
    found = candidates_among([among, image(tmp_path, "1", "MG", "1.1")])
    assert [one.source for one in found.candidates] == ["a.0", "b.0", "c.0"]


# --- segmentations that say nothing ---------------------------------------------------------------------------------


def test_what_is_on_a_server_or_damaged_does_not_hide_what_is_here(tmp_path: Path) -> None:
    (tmp_path / "b.dcm").write_bytes(b"\0" * 200)
    good, empty = seg(tmp_path / "d.dcm", [(1, "a", ["1.1"])]), seg(tmp_path / "c.dcm", [])
    among = series("seg", "SEG", {"a": None, "b": tmp_path / "b.dcm", "c": empty, "d": good})
    found = candidates_among([image(tmp_path, "1", "MG", "1.1"), among, series("far", "SEG", {})])
    on_server = Refusal(what="SEG 'left' 20240229", reason="It is on a server only: retrieve it in 3D Slicer.")
    assert found.refusals == [
        on_server,
        on_server,
        Refusal(what="SEG 'left' 20240229 (b.dcm)", reason="b.dcm is damaged: export it again."),
        Refusal(
            what="SEG 'left' 20240229 (c.dcm)",
            reason="It has no segments: mark the lesion in it, or leave it out.",
        ),
    ]
    assert [one.segmentation for one in found.candidates] == [str(good)]


def test_a_segment_without_a_frame_marks_nothing_and_yet_its_image_is_segmented(tmp_path: Path) -> None:
    among = drawn(seg(tmp_path / "s.dcm", [(1, "a", None), (2, "b", ["1.1"])], {"1": ["1.1"]}))
    found = candidates_among([image(tmp_path, "1", "MG", "1.1"), among])
    assert found.refusals == [
        Refusal(
            what="'a' (number 1) in SEG 'left' 20240229 (s.dcm)",
            reason="It marks nothing (no frame or closed contour is its own): mark the lesion.",
        )
    ]
    assert [one.segment for one in found.candidates] == ["b"]
    alone = drawn(seg(tmp_path / "n.dcm", [(1, "a", None)], {"1": []}))
    nothing = candidates_among([image(tmp_path, "1", "MG", "1.1"), alone])
    assert (nothing.candidates, nothing.unsegmented) == ([], [])


def test_a_number_that_two_segments_of_a_file_share(tmp_path: Path) -> None:
    among = drawn(seg(tmp_path / "s.dcm", [(1, "a", ["1.1"]), (1, "b", ["1.1"]), (2, "c", ["1.1"])]))
    found = candidates_among([image(tmp_path, "1", "MG", "1.1"), among])
    assert [one.segment for one in found.candidates] == ["a", "c"]
    assert found.refusals == [
        Refusal(
            what="'b' (number 1) in SEG 'left' 20240229 (s.dcm)",
            reason="Another segment of its file has its number: export it again.",
            modality="MG",
        )
    ]


def test_a_copy_of_a_segmentation_is_the_same_lesion(tmp_path: Path) -> None:
    files = [seg(tmp_path / name, [(1, "a", ["1.1"])]) for name in ("s.dcm", "copy.dcm")]
    among = [series(uid, "SEG", {"s.0": file}) for uid, file in zip("ab", files, strict=True)]
    assert only(image(tmp_path, "1", "MG", "1.1"), *among).segmentation == str(files[0])


# --- which image ----------------------------------------------------------------------------------------------------


def test_the_image_is_the_one_that_its_frames_were_drawn_on(tmp_path: Path) -> None:
    """Whatever else its file lists."""
    file = seg(tmp_path / "s.dcm", [(1, "a", ["2.1"])], {"1": ["1.1"], "2": ["2.1"]})
    assert only(*(image(tmp_path, uid, "MG", f"{uid}.1") for uid in "123"), drawn(file)).series == "2"


def test_where_its_frames_name_none_it_is_the_series_that_its_file_lists(tmp_path: Path) -> None:
    file = seg(tmp_path / "s.dcm", [(1, "a", [])], {"2": ["2.1"], "9": []})
    assert only(*(image(tmp_path, uid, "MG", f"{uid}.1") for uid in "123"), drawn(file)).series == "2"


def test_where_nothing_is_named_it_is_the_image_in_its_space(tmp_path: Path) -> None:
    images = [image(tmp_path, uid, "CT", f"{uid}.1", frame_of_reference=f"5.{uid}") for uid in "123"]
    file = seg(tmp_path / "s.dcm", [(1, "a", [])], space="5.2")
    assert only(*images, drawn(file)).series == "2"
    nowhere = seg(tmp_path / "n.dcm", [(1, "a", [])])
    assert reason(*images, drawn(nowhere)) == "Its image is not here: add the series that it was drawn on."


def test_a_space_does_not_matter_where_an_image_is_named(tmp_path: Path) -> None:
    images = [image(tmp_path, uid, "CT", f"{uid}.1", frame_of_reference="5.1") for uid in "12"]
    for frames, lists in ((["2.1"], {}), ([], {"2": ["2.1"]})):
        file = seg(tmp_path / "s.dcm", [(1, "a", frames)], lists, space="5.1")
        assert only(*images, drawn(file)).series == "2"


def test_of_two_copies_of_an_image_the_one_in_the_listed_series_is_meant(tmp_path: Path) -> None:
    images = [image(tmp_path, uid, "MG", "7.7") for uid in "123"]
    listed = seg(tmp_path / "s.dcm", [(1, "a", ["7.7"])], {"2": ["7.7"]})
    assert only(*images, drawn(listed)).series == "2"
    unlisted = seg(tmp_path / "u.dcm", [(1, "a", ["7.7"])])
    said = reason(*images, drawn(unlisted))
    assert said == "It refers to 3 image series, so that it is open which is meant: keep it to one."


def test_a_segmentation_of_a_segmentation_is_none_of_an_image(tmp_path: Path) -> None:
    file = seg(tmp_path / "s.dcm", [(1, "a", ["1.1"])], {"1": ["1.1"], "8": []})
    other = series("8", "SEG", {"8.1": seg(tmp_path / "o.dcm", [(1, "a", ["6.1"])], {"6": ["6.1"]})})
    found = candidates_among([image(tmp_path, "1", "MG", "1.1"), series("6", "SEG", {"6.1": file}), other])
    assert [one.source for one in found.candidates] == ["6.1"]
    assert reasons(found) == ["Its image is not here: add the series that it was drawn on."]


@pytest.mark.parametrize(("modality", "named"), [("PT", "PT"), ("", "of no modality")])
def test_an_image_that_no_model_reads(tmp_path: Path, modality: str, named: str) -> None:
    file = seg(tmp_path / "s.dcm", [(1, "a", ["1.1"])])
    found = candidates_among([image(tmp_path, "1", modality, "1.1"), drawn(file)])
    assert found.refusals == [
        Refusal(
            what="'a' (number 1) in SEG 'left' 20240229 (s.dcm)",
            reason=f"Its image is {named}, which no model reads: they read MG, US, CT, MR.",
        )
    ]
    assert found.candidates == []


def test_of_two_images_the_one_that_a_model_reads(tmp_path: Path) -> None:
    file = seg(tmp_path / "s.dcm", [(1, "a", ["1.1", "2.1"])])
    among = image(tmp_path, "1", "PT", "1.1"), image(tmp_path, "2", "CT", "2.1"), drawn(file)
    assert only(*among).series == "2"


# --- all of its files -----------------------------------------------------------------------------------------------


def test_a_volume_is_all_its_slices_and_a_picture_itself_alone(tmp_path: Path) -> None:
    for modality, count in (("CT", 3), ("MR", 3), ("MG", 1), ("US", 1)):
        file = seg(tmp_path / "s.dcm", [(1, "a", ["1.2"])], {"1": ["1.2"]})
        found = only(image(tmp_path, "1", modality, "1.1", "1.2", "1.3"), drawn(file))
        assert len(found.image) == count
        assert found.image == tuple(sorted(found.image))
        assert str(tmp_path / "1 1.2.dcm") in found.image


def test_a_segment_on_two_pictures_is_one_of_a_volume(tmp_path: Path) -> None:
    file = seg(tmp_path / "s.dcm", [(1, "a", ["1.1", "1.2"])])
    assert len(only(image(tmp_path, "1", "US", "1.1", "1.2", "1.3"), drawn(file)).image) == 3


@pytest.mark.parametrize(("frames", "listed"), [(["1.1", "1.9"], []), (["1.1"], ["1.1", "1.9"])])
def test_a_volume_of_which_a_slice_was_never_here(tmp_path: Path, frames: list[str], listed: list[str]) -> None:
    file = seg(tmp_path / "s.dcm", [(1, "a", frames)], {"1": listed})
    found = candidates_among([image(tmp_path, "1", "CT", "1.1", "1.2"), drawn(file)])
    assert found.refusals == [
        Refusal(
            what="'a' (number 1) in SEG 'left' 20240229 (s.dcm)",
            reason="Its image lacks 1 of 3 files: import the series again.",
            modality="CT",
        )
    ]
    assert (found.candidates, found.unsegmented) == ([], [])


def test_slices_of_another_image_are_not_missed(tmp_path: Path) -> None:
    file = seg(tmp_path / "s.dcm", [(1, "a", ["1.1", "2.1"])], {"1": ["1.1"]})
    found = only(image(tmp_path, "1", "CT", "1.1"), image(tmp_path, "2", "CT", "2.1"), drawn(file))
    assert found.image == (str(tmp_path / "1 1.1.dcm"),)


def test_a_slice_that_has_gone_from_the_disk(tmp_path: Path) -> None:
    volume = image(tmp_path, "1", "CT", "1.1", "1.2", "1.3")
    (tmp_path / "1 1.2.dcm").unlink()
    file = seg(tmp_path / "s.dcm", [(1, "a", ["1.1"])])
    assert reason(volume, drawn(file)) == "Its image lacks 1 of 3 files: import the series again."


def test_a_slice_that_is_on_a_server_only(tmp_path: Path) -> None:
    volume = image(tmp_path, "1", "CT", "1.1", "1.2")
    volume.files["1.2"] = None
    file = seg(tmp_path / "s.dcm", [(1, "a", ["1.1"])])
    assert reason(volume, drawn(file)) == IMAGE_ON_SERVER
    pictures = series("1", "MG", {**volume.files})
    assert only(pictures, drawn(file)).image == (str(tmp_path / "1 1.1.dcm"),)
    nothing = series("1", "CT", {})
    listing_it = seg(tmp_path / "l.dcm", [(1, "a", [])], {"1": []})
    assert reason(nothing, drawn(listing_it)) == IMAGE_ON_SERVER


# --- in its space ---------------------------------------------------------------------------------------------------


ELSEWHERE = "It lies in another frame of reference than its image: draw it on this image."


@pytest.mark.parametrize(
    ("of_image", "of_segment", "fits"),
    [("1.5", "1.5", True), ("1.5", "1.6", False), ("1.5", "", True), ("", "1.6", True), ("", "", True)],
)
@pytest.mark.parametrize("known", [True, False])
def test_a_segment_lies_in_the_space_of_its_image(
    tmp_path: Path, of_image: str, of_segment: str, fits: bool, known: bool
) -> None:
    """Whether the source says in which space the image lies, or its file has to be asked."""
    about = {"FrameOfReferenceUID": of_image} if of_image else {}
    file = write(tmp_path / "i.dcm", item(Modality="CT", **about), CTImageStorage)
    volume = series("1", "CT", {"1.1": file}, frame_of_reference=of_image if known else None)
    among = volume, drawn(seg(tmp_path / "s.dcm", [(1, "a", ["1.1"])], space=of_segment))
    if fits:
        assert only(*among).image == (str(file),)
    else:
        assert reason(*among) == ELSEWHERE
    assert volume.frame_of_reference == of_image


def test_an_image_whose_space_cannot_be_read(tmp_path: Path) -> None:
    (tmp_path / "i.dcm").write_bytes(b"\0" * 200)
    volume = series("1", "CT", {"1.1": tmp_path / "i.dcm"}, frame_of_reference=None)
    file = seg(tmp_path / "s.dcm", [(1, "a", ["1.1"])], space="1.5")
    assert reason(volume, drawn(file)) == "i.dcm is damaged: export it again."


def test_only_the_header_of_an_image_is_read(tmp_path: Path) -> None:
    pixels = item(Modality="CT", FrameOfReferenceUID="1.5", Rows=8, Columns=8, BitsAllocated=8, PixelData=b"\0" * 64)
    file = write(tmp_path / "i.dcm", pixels, CTImageStorage)
    file.write_bytes(file.read_bytes()[:-60])
    volume = series("1", "CT", {"1.1": file}, frame_of_reference=None)
    assert only(volume, drawn(seg(tmp_path / "s.dcm", [(1, "a", ["1.1"])], space="1.5"))).series == "1"
    assert pydicom.dcmread(file, stop_before_pixels=True).FrameOfReferenceUID == volume.frame_of_reference


# --- what is left ---------------------------------------------------------------------------------------------------


def test_images_that_a_model_reads_and_nobody_segmented(tmp_path: Path) -> None:
    words = {"description": "", "study_description": "Brust"}
    among = [
        image(tmp_path, "1", "MG", "1.1"),
        image(tmp_path, "2", "US", "2.1", study_date="20230101", **words),
        image(tmp_path, "3", "CT", "3.1"),
        image(tmp_path, "4", "PT", "4.1"),
        image(tmp_path, "5", "MR", "5.1"),
        drawn(seg(tmp_path / "s.dcm", [(1, "a", ["1.1"])]), seg(tmp_path / "t.dcm", [(1, "a", ["5.1"])])),
    ]
    found = candidates_among(among)
    reason_left = "It has no segmentation: segment it in Slicer, or leave it."
    assert found.unsegmented == [
        Refusal(what="US without description of 'Brust' 20230101", reason=reason_left, modality="US"),
        Refusal(what="CT 'left' 20240229", reason=reason_left, modality="CT"),
    ]


@pytest.mark.parametrize(
    ("words", "title"),
    [
        ({}, "MG 'left' 20240229"),
        ({"study_description": "Brust"}, "MG 'left' of 'Brust' 20240229"),
        ({"description": "", "study_date": ""}, "MG without description"),
        ({"modality": "", "study_date": ""}, "series 'left'"),
    ],
)
def test_the_title_of_a_series_is_what_is_known_of_it(words: dict[str, str], title: str) -> None:
    given = {"modality": "MG", **words}
    assert series("1", given.pop("modality"), {}, **given).title == title


@pytest.mark.parametrize(
    ("date", "day"),
    [
        ("20240229", "20240229"),
        ("2024-02-29", "20240229"),
        ("2024.02.29", "20240229"),
        (" 20240229 ", "20240229"),
        (20240229, "20240229"),
        (None, ""),
        ("", ""),
        ("2024022", ""),
        ("202402299", ""),
        ("2024Feb9", ""),
        ("２０２４０２２９", ""),
    ],
)
def test_a_date_as_eight_digits(date: object, day: str) -> None:
    assert as_day(date) == day
