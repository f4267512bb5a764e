"""A mask with several lesions: one for each label or segment, chosen by label, name or ID."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

import numpy as np
import pytest

from radllm_backend.errors import RadllmError
from radllm_backend.imaging.image_files import read_image, read_mask
from radllm_backend.imaging.lesion import Lesion
from Testing.support.image_cases import VALUES_2D, VALUES_3D, content, image_of, pair, three_labels, write


def test_one_lesion_for_each_label(tmp_path: Path) -> None:
    files = pair(tmp_path, mask=three_labels())
    lesions = Lesion.all_from_files(*files)
    assert [lesion.segment for lesion in lesions] == ["label 3", "label 17", "label 200"]
    assert [lesion.geometry.voxels for lesion in lesions] == [9, 9, 4]
    assert content(Lesion.from_files(*files, label=17)) == content(lesions[1])
    assert len({lesion.image_sha256 for lesion in lesions}) == 1
    assert [lesion.segment for lesion in Lesion.all_from_files(*pair(tmp_path))] == [""]


def test_a_label_to_choose(tmp_path: Path) -> None:
    files = pair(tmp_path, mask=three_labels())
    with pytest.raises(RadllmError, match=r"mask\.nrrd leaves open .*: choose one of labels 3, 17, 200\."):
        Lesion.from_files(*files)
    with pytest.raises(RadllmError, match=r"mask\.nrrd has no label 2: it has labels 3, 17, 200\."):
        Lesion.from_files(*files, label=2)
    with pytest.raises(RadllmError, match=r"mask\.nrrd names no segments, so not 'Tumour' either: choose by label"):
        Lesion.from_files(*files, segment="Tumour")
    with pytest.raises(RadllmError, match=r"the mask leaves open"):
        Lesion.from_images(image_of(VALUES_2D), image_of(three_labels()))
    many = np.arange(VALUES_2D.size, dtype=np.uint8).reshape(VALUES_2D.shape)
    with pytest.raises(RadllmError, match=r"labels 1, 2, 3, 4, 5, 6, 7, 8, 9, 10 and 79 more\."):
        Lesion.from_files(*pair(tmp_path, mask=many))


def write_segments(path: Path, layers: Sequence[np.ndarray], segments: Sequence[tuple[str, str, int, int]]) -> Path:
    """A ``.seg.nrrd`` as 3D Slicer writes it: layers in front, segments as (ID, name, layer, label)."""
    header = ["NRRD0004", "type: uint8", f"dimension: {3 + (len(layers) > 1)}", "space: left-posterior-superior"]
    size = " ".join(str(length) for length in layers[0].shape[::-1])
    several = len(layers) > 1
    header += [f"sizes: {len(layers)} {size}" if several else f"sizes: {size}"]
    header += [f"space directions: {'none ' * several}(1,0,0) (0,1,0) (0,0,1)", "space origin: (0,0,0)"]
    header += [f"kinds: {'list ' * several}domain domain domain", "encoding: raw"]
    for number, (identifier, name, layer, label) in enumerate(segments):
        facts = {"ID": identifier, "Name": name, "Layer": layer, "LabelValue": label, "Extent": "0 9 0 8 0 5"}
        header += [f"Segment{number}_{key}:={value}" for key, value in facts.items()]
    path.write_bytes(("\n".join(header) + "\n\n").encode() + np.stack(layers, axis=-1).astype(np.uint8).tobytes())
    return path


@pytest.fixture
def segmentation(tmp_path: Path) -> tuple[Path, Path]:
    """Overlapping segments in two layers; two of them share a name, one is empty."""
    first, second = np.zeros((2, *VALUES_3D.shape), np.uint8)
    first[1:3, 1:4, 1:4], first[3:5, 5:8, 5:9], second[1:4, 2:6, 2:6] = 1, 2, 1
    segments = [("S1", "Tumour", 0, 1), ("S2", "Cyst", 0, 2), ("S3", "Cyst", 1, 1), ("S4", "Nothing", 1, 2)]
    return write(tmp_path / "ct.nrrd", VALUES_3D), write_segments(tmp_path / "a.seg.nrrd", [first, second], segments)


def test_segments_by_name_and_id(segmentation: tuple[Path, Path]) -> None:
    for chosen, voxels, name in (("Tumour", 18, "Tumour"), ("S2", 24, "Cyst"), ("S3", 48, "Cyst")):
        lesion = Lesion.from_files(*segmentation, segment=chosen)
        assert (lesion.geometry.voxels, lesion.segment) == (voxels, name)
    assert Lesion.from_files(*segmentation, segment="Cyst", label=2).geometry.voxels == 24


def test_a_segment_to_choose(segmentation: tuple[Path, Path]) -> None:
    listed = r"segments 'Tumour' \(ID S1\), 'Cyst' \(ID S2\), 'Cyst' \(ID S3\), 'Nothing' \(ID S4\)\."
    with pytest.raises(RadllmError, match=r"a\.seg\.nrrd leaves open which lesion is meant: choose one of " + listed):
        Lesion.from_files(*segmentation)
    with pytest.raises(RadllmError, match=r"choose one of segments 'Cyst' \(ID S2\), 'Cyst' \(ID S3\)\."):
        Lesion.from_files(*segmentation, segment="Cyst")
    with pytest.raises(RadllmError, match=r"a\.seg\.nrrd has no segment 'tumour': it has " + listed):
        Lesion.from_files(*segmentation, segment="tumour")
    with pytest.raises(RadllmError, match=r"segment 'Nothing' of a\.seg\.nrrd is empty"):
        Lesion.from_files(*segmentation, segment="Nothing")


def test_one_lesion_for_each_segment(tmp_path: Path) -> None:
    mask = np.zeros(VALUES_3D.shape, np.uint8)
    mask[1:3, 1:4, 1:4], mask[3:5, 5:8, 5:9] = 2, 1
    segments = [("S1", "Tumour", 0, 2), ("S2", "", 0, 1)]
    files = write(tmp_path / "ct.nrrd", VALUES_3D), write_segments(tmp_path / "a.seg.nrrd", [mask], segments)
    assert [(lesion.segment, lesion.geometry.voxels) for lesion in Lesion.all_from_files(*files)] == [
        ("Tumour", 18),
        ("", 24),
    ]
    broken = write_segments(tmp_path / "b.seg.nrrd", [mask, mask], [("S1", "Tumour", 2, 1)])
    with pytest.raises(RadllmError, match=r"segment 'Tumour' of b\.seg\.nrrd is said to be in a layer that is not"):
        Lesion.from_files(files[0], broken)


def test_files_read_once_for_several_lesions(tmp_path: Path) -> None:
    image, mask = pair(tmp_path, mask=three_labels(), suffix="png")
    read = read_image(image), read_mask(mask)
    for label in (3, 17, 200):
        assert Lesion.from_files(*read, label=label, spacing=0.3).geometry.spacing == (0.3, 0.3)
        again = Lesion.from_files(image, mask, label=label)
        assert content(Lesion.from_files(*read, label=label)) == content(again)
