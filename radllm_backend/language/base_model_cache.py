"""The cache folder: what lies in it, what is known of the user's own model folders, and one writer at a time."""

from __future__ import annotations

import contextlib
import hashlib
import os
import shutil
from collections.abc import Iterator, Mapping
from pathlib import Path

import filelock
import platformdirs
import pydantic

from radllm_backend.errors import RadllmError
from radllm_backend.files import sha256_of, write_atomically
from radllm_backend.records import SHA256, Progress, Record

MODEL_FILES = ("config.json", "tokenizer*.json", "*.safetensors", "model.safetensors.index.json")
"""Patterns of the files that make up a base model; nothing else is fetched, kept or hashed."""


class StoredFile(Record):
    size: int
    sha256: SHA256


class StoredModel(Record):
    """``base.json``: what a model in the cache is made of and where it came from."""

    name: str
    origin: str
    origin_sha256: SHA256 | None
    """Of the wheel; a hub model's origin names the commit instead."""
    sha256: SHA256
    """The model's identity, see ``BaseModelFolder``."""
    files: dict[str, StoredFile]
    versions: dict[str, str]
    """Of the packages that converted it; empty where nothing was converted."""


class RememberedFile(StoredFile):
    mtime_ns: int


class RememberedFolder(Record):
    """Hashes of a user's own folder, kept so that gigabytes are hashed once and not at every start."""

    folder: str
    files: dict[str, RememberedFile]


def cache_folder() -> Path:
    """``RADLLM_CACHE``, or else the user's cache folder of the operating system."""
    return Path(os.environ.get("RADLLM_CACHE") or platformdirs.user_cache_dir("radllm")).expanduser().absolute()


def model_files(folder: Path) -> list[Path]:
    """The files of a folder that make up its model, by name."""
    return sorted({path for pattern in MODEL_FILES for path in folder.glob(pattern)})


def hash_files(folder: Path) -> dict[str, StoredFile]:
    """Size and SHA-256 of every model file of a folder."""
    return {path.name: StoredFile(size=path.stat().st_size, sha256=sha256_of(path)) for path in model_files(folder)}


def identity(files: Mapping[str, StoredFile]) -> str:
    """One SHA-256 over the sorted names and SHA-256s of a model's files."""
    lines = [f"{name} {file.sha256}\n" for name, file in sorted(files.items())]
    return hashlib.sha256("".join(lines).encode()).hexdigest()


def remembered_hashes(folder: Path) -> dict[str, RememberedFile]:
    """As `hash_files` for a user's own folder, but a file is read again only when its size or time has changed."""
    memory = cache_folder() / "folders" / f"{hashlib.sha256(os.fsencode(folder)).hexdigest()}.json"
    known: dict[str, RememberedFile] = {}
    with contextlib.suppress(OSError, pydantic.ValidationError):
        known = RememberedFolder.model_validate_json(memory.read_bytes()).files
    files = {path.name: _remembered(path, known.get(path.name)) for path in model_files(folder)}
    if files != known:
        # A cache that cannot be written costs time at the next start, nothing else.
        with contextlib.suppress(OSError, RadllmError):
            memory.parent.mkdir(parents=True, exist_ok=True)
            write_atomically(memory, RememberedFolder(folder=str(folder), files=files).model_dump_json(indent=1))
    return files


def _remembered(path: Path, known: RememberedFile | None) -> RememberedFile:
    status = path.stat()
    if known is not None and (known.size, known.mtime_ns) == (status.st_size, status.st_mtime_ns):
        return known
    return RememberedFile(size=status.st_size, sha256=sha256_of(path), mtime_ns=status.st_mtime_ns)


@contextlib.contextmanager
def sole_writer(folder: Path, progress: Progress) -> Iterator[Path]:
    """An empty workshop beside a folder of the cache, for one process at a time, gone afterwards.

    What a killed process left in it is removed first. Trouble with the disk becomes one sentence.
    """
    workshop = folder.with_name(f".{folder.name}.partial")
    lock = filelock.FileLock(folder.with_name(f".{folder.name}.lock"))
    try:
        folder.parent.mkdir(parents=True, exist_ok=True)
        _acquire(lock, progress)
        if workshop.exists():
            shutil.rmtree(workshop)
        workshop.mkdir()
        yield workshop
    except OSError as error:
        raise RadllmError(
            f"The cache folder {folder.parent} cannot be written ({error.strerror or error}): "
            "free some space, or name another folder in the environment variable RADLLM_CACHE."
        ) from error
    finally:
        if lock.is_locked:
            shutil.rmtree(workshop, ignore_errors=True)
            lock.release()


def discard_unfinished() -> None:
    """Remove what killed processes left of base models in the cache, but for a model that a process is at work on."""
    for workshop in (cache_folder() / "base-models").glob(".*.partial"):
        with (
            contextlib.suppress(filelock.Timeout, OSError),
            filelock.FileLock(workshop.with_suffix(".lock"), timeout=0),
        ):
            shutil.rmtree(workshop)


def _acquire(lock: filelock.BaseFileLock, progress: Progress) -> None:
    try:
        lock.acquire(timeout=0)
    except filelock.Timeout:
        progress("Waiting for another process that is at work on the same model.", 0.0)
        lock.acquire()
