"""Files that come from elsewhere are refused unless they are whole, and data; files for others appear whole or not."""

from __future__ import annotations

import hashlib
import json
from pathlib import Path

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from radllm_backend.errors import RadllmError
from radllm_backend.files import (
    MAX_SAFETENSORS_HEADER,
    check_safetensors,
    read_json,
    refuse_unsafe,
    sha256_of,
    write_atomically,
)

per_example_files = settings(deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])


def safetensors_bytes(header: object, data: bytes = b"") -> bytes:
    text = header if isinstance(header, bytes) else json.dumps(header).encode()
    return len(text).to_bytes(8, "little") + text + data


def tensor(begin: object, end: object) -> dict[str, object]:
    return {"dtype": "U8", "shape": [1], "data_offsets": [begin, end]}


def test_sha256_of_a_file_is_that_of_its_bytes(tmp_path: Path) -> None:
    (tmp_path / "a").write_bytes(b"abc" * 1_000_000)
    assert sha256_of(tmp_path / "a") == hashlib.sha256(b"abc" * 1_000_000).hexdigest()
    with pytest.raises(RadllmError, match=r"missing cannot be read \(No such file"):
        sha256_of(tmp_path / "missing")


def test_a_file_is_written_whole_readable_for_others_and_over_the_old_one(tmp_path: Path) -> None:
    path = tmp_path / "model.json"
    path.write_text("old")
    write_atomically(path, "größer\n")
    assert path.read_bytes() == "größer\n".encode()
    write_atomically(path, b"\x00\r\n")
    assert path.read_bytes() == b"\x00\r\n"
    (tmp_path / "ordinary").touch()
    assert path.stat().st_mode == (tmp_path / "ordinary").stat().st_mode
    assert {file.name for file in tmp_path.iterdir()} == {"model.json", "ordinary"}


def test_a_failed_write_leaves_the_old_file_and_nothing_else(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    path = tmp_path / "model.json"
    path.write_text("old")

    def full(*_: object) -> None:
        raise OSError(28, "No space left on device")

    monkeypatch.setattr("os.fsync", full)
    with pytest.raises(RadllmError, match=r"model.json cannot be written \(No space left on device\)"):
        write_atomically(path, "new")
    assert path.read_text() == "old"
    assert list(tmp_path.iterdir()) == [path]
    with pytest.raises(RadllmError, match="cannot be written"):
        write_atomically(tmp_path / "nowhere" / "model.json", "new")


@pytest.mark.parametrize("content", [b"", b"{", b"[1]", b"nul", b'{"a": }', b"\xff\xfe{", b'{"a":' * 100_000])
def test_anything_but_a_json_object_is_one_sentence(tmp_path: Path, content: bytes) -> None:
    (tmp_path / "config.json").write_bytes(content)
    with pytest.raises(RadllmError, match=r"config.json (is not valid JSON|holds no JSON object): "):
        read_json(tmp_path / "config.json")


BROKEN_SAFETENSORS = {
    "empty": b"",
    "shorter than its length field": b"\x01\x00",
    "header longer than the file": (100).to_bytes(8, "little") + b"{}",
    "huge header": (2**63).to_bytes(8, "little") + b"{}",
    "no JSON": safetensors_bytes(b"{nonsense"),
    "no UTF-8": safetensors_bytes(b"\xff\xff\xff"),
    "deep JSON": safetensors_bytes(b"[" * 200_000),
    "a list": safetensors_bytes([]),
    "a tensor that is no object": safetensors_bytes({"w": 3}),
    "no offsets": safetensors_bytes({"w": {"dtype": "U8", "shape": [1]}}),
    "three offsets": safetensors_bytes({"w": {"data_offsets": [0, 1, 2]}}, b"xx"),
    "text offsets": safetensors_bytes({"w": tensor("0", "1")}, b"x"),
    "fractions": safetensors_bytes({"w": tensor(0, 1.0)}, b"x"),
    "infinity": safetensors_bytes(b'{"w": {"data_offsets": [0, Infinity]}}', b"x"),
    "negative": safetensors_bytes({"w": tensor(0, -1)}),
    "a gap": safetensors_bytes({"a": tensor(0, 1), "b": tensor(2, 3)}, b"xyz"),
    "an overlap": safetensors_bytes({"a": tensor(0, 2), "b": tensor(1, 3)}, b"xyz"),
    "beyond the end": safetensors_bytes({"w": tensor(0, 9)}, b"x"),
    "cut off": safetensors_bytes({"w": tensor(0, 4)}, b"xyz"),
    "more after the last tensor": safetensors_bytes({"w": tensor(0, 1)}, b"xyz"),
    "a pickle": b"\x80\x04\x95\x0f\x00\x00\x00\x00\x00\x00\x00\x8c\x05posix\x94",
}


@pytest.mark.parametrize("content", BROKEN_SAFETENSORS.values(), ids=BROKEN_SAFETENSORS)
def test_broken_safetensors_are_refused(tmp_path: Path, content: bytes) -> None:
    (tmp_path / "w.safetensors").write_bytes(content)
    with pytest.raises(RadllmError, match=r"w.safetensors is not a sound safetensors file \("):
        check_safetensors(tmp_path / "w.safetensors")


def test_a_header_over_the_limit_is_not_even_read(tmp_path: Path) -> None:
    path = tmp_path / "w.safetensors"
    with path.open("wb") as file:  # a sparse file: nothing is really written
        file.write((MAX_SAFETENSORS_HEADER + 1).to_bytes(8, "little"))
        file.truncate(MAX_SAFETENSORS_HEADER + 1000)
    with pytest.raises(RadllmError, match="longer than the file or than 100 MB"):
        check_safetensors(path)


@per_example_files
@given(shapes=st.lists(st.lists(st.integers(0, 4), max_size=3), max_size=4), cut=st.integers(1, 50))
def test_what_the_library_writes_passes_and_no_shorter_file_does(
    tmp_path: Path, shapes: list[list[int]], cut: int
) -> None:
    numpy = pytest.importorskip("numpy")
    library = pytest.importorskip("safetensors.numpy")
    path = tmp_path / "w.safetensors"
    tensors = {f"t{index}": numpy.zeros(shape, numpy.float32) for index, shape in enumerate(shapes)}
    library.save_file(tensors, path, metadata={"format": "pt"})
    check_safetensors(path)
    content = path.read_bytes()
    path.write_bytes(content[: max(0, len(content) - cut)])
    with pytest.raises(RadllmError):
        check_safetensors(path)


@per_example_files
@given(
    header=st.recursive(
        st.none() | st.booleans() | st.floats() | st.text(),
        lambda inner: st.lists(inner) | st.dictionaries(st.sampled_from(["w", "data_offsets", "__metadata__"]), inner),
    ),
    data=st.binary(max_size=9),
)
def test_any_header_is_either_sound_or_refused(tmp_path: Path, header: object, data: bytes) -> None:
    path = tmp_path / "w.safetensors"
    path.write_bytes(safetensors_bytes(header, data))
    try:
        check_safetensors(path)
    except RadllmError:
        return
    assert isinstance(header, dict)


@pytest.mark.parametrize(
    "name", ["modeling.py", "kernel.so", "a.PYC", "pytorch_model.bin", "x.pt", "x.PTH", "x.pkl", "x.ckpt", "x.joblib"]
)
def test_code_and_pickles_are_refused_by_name(tmp_path: Path, name: str) -> None:
    (tmp_path / "README.md").touch()
    refuse_unsafe(tmp_path)
    (tmp_path / name).touch()
    with pytest.raises(RadllmError, match=rf"holds (code \()?{name}"):
        refuse_unsafe(tmp_path)


def test_a_folder_that_cannot_be_read_is_one_sentence(tmp_path: Path) -> None:
    with pytest.raises(RadllmError, match=r"nowhere cannot be read \(No such file or directory\)"):
        refuse_unsafe(tmp_path / "nowhere")


@pytest.mark.parametrize("name", ["config.json", "tokenizer_config.json"])
def test_code_by_reference_is_refused(tmp_path: Path, name: str) -> None:
    (tmp_path / name).write_text('{"auto_map": {"AutoModel": "other/repository--modeling.Model"}}')
    with pytest.raises(RadllmError, match=rf"{name} asks to run code of its own \(auto_map\)"):
        refuse_unsafe(tmp_path)


@pytest.mark.parametrize(
    ("index", "reason"),
    [
        ({"weight_map": {"w": "../other.safetensors"}}, "only .safetensors files beside it"),
        ({"weight_map": {"w": "..\\other.safetensors"}}, "only .safetensors files beside it"),
        ({"weight_map": {"w": "/etc/other.safetensors"}}, "only .safetensors files beside it"),
        ({"weight_map": {"w": "pytorch_model.dat"}}, "only .safetensors files beside it"),
        ({"weight_map": {"w": "missing.safetensors"}}, "missing.safetensors, which is missing"),
        ({"weight_map": {"w": 3}}, "no sound weight_map"),
        ({"weight_map": ["w"]}, "no sound weight_map"),
        ({}, "no sound weight_map"),
    ],
)
def test_an_index_that_leads_elsewhere_is_refused(tmp_path: Path, index: object, reason: str) -> None:
    (tmp_path / "model.safetensors.index.json").write_text(json.dumps(index))
    with pytest.raises(RadllmError, match=reason):
        refuse_unsafe(tmp_path)


def test_a_sound_folder_of_several_weight_files_passes(tmp_path: Path) -> None:
    for name in ("a", "b"):
        (tmp_path / f"{name}.safetensors").write_bytes(safetensors_bytes({name: tensor(0, 1)}, b"x"))
    index = {"weight_map": {"a": "a.safetensors", "b": "b.safetensors"}}
    (tmp_path / "model.safetensors.index.json").write_text(json.dumps(index))
    refuse_unsafe(tmp_path)
