"""Files that come from elsewhere, and files that others will read: hashed, data only, never half-written."""

from __future__ import annotations

import contextlib
import hashlib
import json
import os
import shutil
import tempfile
import uuid
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any

from radllm_backend.errors import RadllmError

CODE_SUFFIXES = {".py", ".pyc", ".pyd", ".so", ".dll", ".dylib"}
PICKLE_SUFFIXES = {".bin", ".ckpt", ".joblib", ".pickle", ".pkl", ".pt", ".pth"}
"""What torch, joblib and pickle write: reading such a file can run code."""
MAX_SAFETENSORS_HEADER = 100_000_000
"""Bytes; the limit of the safetensors format itself."""


def sha256_of(path: Path) -> str:
    """The SHA-256 of a file, in lower-case hexadecimal.

    Raises:
        RadllmError: the file cannot be read.
    """
    with _reading(path), path.open("rb") as file:
        return hashlib.file_digest(file, "sha256").hexdigest()


def is_dicom(path: Path) -> bool:
    """Whether a file carries DICOM's mark."""
    with path.open("rb") as file:
        return file.read(132)[128:] == b"DICM"


def write_atomically(path: Path, content: bytes | str) -> None:
    """Write a whole file or nothing (text as UTF-8): other processes see the old file until the new one is complete.

    Raises:
        RadllmError: the folder is missing, read-only or full.
    """
    # Not tempfile: its files are private to the user, and a model folder or a cache may be shared.
    temporary = path.with_name(f".{path.name}.{uuid.uuid4().hex}.partial")
    try:
        with temporary.open("xb") as file:
            file.write(content.encode() if isinstance(content, str) else content)
            file.flush()
            os.fsync(file.fileno())
        os.replace(temporary, path)
    except OSError as error:
        reason = error.strerror or error
        raise RadllmError(f"{path} cannot be written ({reason}): free some space or choose another folder.") from error
    finally:
        with contextlib.suppress(OSError):
            temporary.unlink()


def write_together(folder: Path, files: Mapping[str, bytes]) -> None:
    """Files of an existing folder, by name: all whole under temporary names first; then they replace older ones.

    Raises:
        OSError: the folder is read-only or full, or holds a folder of such a name.
    """
    for name in files:
        if (folder / name).is_dir():
            raise IsADirectoryError(f"{name} is a folder there")
    with tempfile.TemporaryDirectory(dir=folder, prefix=".report-") as temporary:
        for name, content in files.items():
            (Path(temporary) / name).write_bytes(content)
        for name in files:
            os.replace(Path(temporary) / name, folder / name)


@contextlib.contextmanager
def whole_folder(folder: Path) -> Iterator[Path]:
    """A folder to fill, which takes its place when it is complete; `folder` is a new or an empty one.

    Raises:
        OSError: it cannot be made or moved there.
    """
    partial = folder.with_name(f".{folder.name}.{uuid.uuid4().hex}.partial")
    try:
        partial.mkdir(parents=True)
        yield partial
        if folder.exists():
            folder.rmdir()
        os.replace(partial, folder)
    finally:
        shutil.rmtree(partial, ignore_errors=True)


def read_json(path: Path) -> dict[str, Any]:
    """The JSON object in a file.

    Raises:
        RadllmError: the file cannot be read, or is anything but one JSON object.
    """
    try:
        with _reading(path):
            content = json.loads(path.read_bytes())
    except (ValueError, RecursionError) as error:
        raise RadllmError(f"{path} is not valid JSON: fetch it again from where it came from.") from error
    if not isinstance(content, dict):
        raise RadllmError(f"{path} holds no JSON object: fetch it again from where it came from.")
    return content


def check_safetensors(path: Path) -> None:
    """Check that a safetensors file is whole: a sound header whose tensors fill the rest of the file without a gap.

    The format: 8 bytes with the header's length (little-endian), the header as JSON, then the tensors' bytes. The
    values are not looked at.

    Raises:
        RadllmError: it is broken, cut off or not a safetensors file.
    """
    with _reading(path), path.open("rb") as file:
        size = path.stat().st_size
        length = int.from_bytes(file.read(8), "little")
        if size < 8 or length > min(size - 8, MAX_SAFETENSORS_HEADER):
            raise _broken(path, "its header is longer than the file or than 100 MB")
        header = file.read(length)
    end = 0
    for begin, stop in _tensor_ranges(path, header):
        if begin != end or stop < begin:
            raise _broken(path, "its tensors overlap or leave gaps")
        end = stop
    if end != size - 8 - length:
        raise _broken(path, "its tensors do not fill the file, which was probably cut off")


def _tensor_ranges(path: Path, header: bytes) -> list[tuple[int, int]]:
    """Where each tensor begins and ends, in bytes after the header, in rising order."""
    try:
        tensors = json.loads(header)
        tensors.pop("__metadata__", None)
        ranges = [tuple(tensor["data_offsets"]) for tensor in tensors.values()]
    except (ValueError, TypeError, KeyError, AttributeError, RecursionError) as error:
        raise _broken(path, "its header is malformed") from error
    if not all(len(pair) == 2 and all(type(offset) is int for offset in pair) for pair in ranges):
        raise _broken(path, "its header is malformed")
    return sorted(ranges)


def _broken(path: Path, reason: str) -> RadllmError:
    return RadllmError(f"{path} is not a sound safetensors file ({reason}): fetch it again from where it came from.")


@contextlib.contextmanager
def _reading(path: Path) -> Iterator[None]:
    try:
        yield
    except OSError as error:
        reason = error.strerror or error
        raise RadllmError(
            f"{path} cannot be read ({reason}): check that it exists and that you may read it."
        ) from error


def refuse_unsafe(folder: Path) -> None:
    """Check that a model folder is data and nothing else: no code, no pickle, sound safetensors and no way out of it.

    The folder itself is looked at, not those below it: nothing reads them.

    Raises:
        RadllmError: the first finding, with the file's name.
    """
    with _reading(folder):
        paths = sorted(folder.iterdir())
    for path in paths:
        suffix = path.suffix.lower()
        if suffix in CODE_SUFFIXES:
            raise RadllmError(f"{folder} holds code ({path.name}), and a model is data only: use one without code.")
        if suffix in PICKLE_SUFFIXES:
            raise RadllmError(
                f"{folder} holds {path.name}, a kind of file that can run code when it is read: "
                "move it away and keep the weights as .safetensors only."
            )
        if suffix == ".safetensors":
            check_safetensors(path)
        if path.name.endswith(".safetensors.index.json"):
            _check_index(path)
        if path.name in {"config.json", "tokenizer_config.json"} and "auto_map" in read_json(path):
            raise RadllmError(f"{path} asks to run code of its own (auto_map): use a model without it.")


def _check_index(path: Path) -> None:
    """An index says which of several files holds which tensor: only files beside it, and each of them there."""
    weight_map = read_json(path).get("weight_map")
    if not isinstance(weight_map, dict) or not all(isinstance(name, str) for name in weight_map.values()):
        raise RadllmError(f"{path} has no sound weight_map: fetch it again from where it came from.")
    for name in sorted(set(weight_map.values())):
        if "/" in name or "\\" in name or not name.endswith(".safetensors"):
            raise RadllmError(f"{path} names {name!r}, and only .safetensors files beside it may be read: use another.")
        if not (path.parent / name).is_file():
            raise RadllmError(f"{path} names {name}, which is missing: fetch it from where the others came from.")
