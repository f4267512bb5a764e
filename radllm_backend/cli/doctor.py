"""What is installed, what works, and what to do about the rest."""

from __future__ import annotations

import platform
import shutil
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from functools import partial
from importlib import metadata
from importlib.util import find_spec

from radllm_backend import __version__
from radllm_backend.errors import RadllmError
from radllm_backend.language.base_model_cache import cache_folder
from radllm_backend.language.base_models import locate
from radllm_backend.language.blas import cores
from radllm_backend.language.reader import may_have_gpu
from radllm_backend.models.bundle import read_bundle
from radllm_backend.models.shipped import shipped_models

_INSTALL = "pip install radllm-backend"
_INSTALL_TRAINING = "pip install 'radllm-backend[training]'"
_INSTALL_BATCH = "pip install 'radllm-backend[batch]'"
_NEEDED_BYTES = 1_000_000_000


@dataclass(frozen=True)
class Finding:
    """One thing that was looked at."""

    subject: str
    works: bool
    detail: str
    advice: str = ""
    """What to do; empty where it works."""
    required: bool = True
    """Whether a lesion can be classified without it."""


def examine() -> list[Finding]:
    """Everything a classification needs, and what makes it better."""
    return [*_packages(), *_training(), *_batch(), *_decoders(), *_models(), _processor(), _disk()]


def healthy(findings: list[Finding]) -> bool:
    """Whether a lesion can be classified."""
    return all(finding.works for finding in findings if finding.required)


def _packages() -> Iterator[Finding]:
    yield Finding("radllm_backend", True, f"{__version__}, Python {platform.python_version()} on {platform.system()}")
    distributions = metadata.packages_distributions()  # a look at every installed file: once
    extraction = "pip install pyradiomics-bhklab==3.1.4 (inside Slicer: the extension SlicerRadiomics)"
    for package, advice in (
        ("numpy", "pip install 'numpy>=2,<2.5'"),
        ("SimpleITK", "pip install SimpleITK"),
        ("radiomics", extraction),
        ("gguf", _INSTALL),
        ("safetensors", _INSTALL),
        ("tokenizers", _INSTALL),
    ):
        found = find_spec(package) is not None
        names = distributions.get(package, [])
        version = metadata.version(names[0]) if names else "version unknown"
        yield Finding(package, found, version if found else "not installed", "" if found else advice)


def _training() -> Iterator[Finding]:
    for package in ("lightgbm", "matplotlib", "peft", "skops", "torch", "transformers"):
        yield _optional(package, "to train, evaluate and compare models", "models cannot be trained", _INSTALL_TRAINING)


def _batch() -> Iterator[Finding]:
    for package in ("distributed", "pyarrow", "cryptography"):
        yield _optional(package, "to classify every lesion of a database", "radllm batch cannot run", _INSTALL_BATCH)


def _optional(package: str, purpose: str, otherwise: str, advice: str) -> Finding:
    if find_spec(package) is None:
        return Finding(package, False, f"not installed: {otherwise} here", advice, required=False)
    return Finding(package, True, purpose, required=False)


def _decoders() -> Iterator[Finding]:
    for package, module, what, otherwise in (
        ("pylibjpeg-rle", "rle", "RLE DICOM", "pydicom"),
        ("imagecodecs", "imagecodecs", "JPEG DICOM", "GDCM"),
    ):
        found = find_spec(module) is not None
        detail = f"fast decoder for {what}" if found else f"no fast decoder for {what}: {otherwise} reads it, slower"
        yield Finding(package, found, detail, "" if found else "pip install 'radllm-backend[dicom]'", False)


def _models() -> Iterator[Finding]:
    bases = set()
    for name in shipped_models():
        finding, base = _try(f"model {name}", partial(_base_of, name))
        yield finding
        if base:
            bases.add(base)
    if not shipped_models():
        yield Finding("models", False, "none is shipped with this installation", "train one: radllm train", False)
    for base in sorted(bases):
        yield _try(f"base model {base}", partial(_located, base))[0]


def _base_of(model: str) -> str:
    return read_bundle(model).card.base.name


def _located(base: str) -> str:
    return locate(base).name


def _try(subject: str, check: Callable[[], str]) -> tuple[Finding, str]:
    try:
        found = check()
    except RadllmError as error:
        return Finding(subject, False, str(error), "as it says"), ""
    return Finding(subject, True, "verified"), found


def _processor() -> Finding:
    reading = f"CPU, up to {cores()} prompts read side by side"
    if not may_have_gpu():
        return Finding("processor", True, reading, required=False)
    import torch

    if torch.cuda.is_available():
        return Finding("processor", True, f"CUDA GPU: {torch.cuda.get_device_name()}", required=False)
    return Finding("processor", True, f"{reading}; PyTorch cannot use this computer's GPU", required=False)


def _disk() -> Finding:
    folder = cache_folder()
    existing = next(path for path in (folder, *folder.parents) if path.exists())
    free = shutil.disk_usage(existing).free
    enough = free > _NEEDED_BYTES
    advice = "" if enough else "free some space, or set RADLLM_CACHE to a folder on another disk"
    return Finding("disk", enough, f"{free / 1e9:.1f} GB free for the base models", advice, False)
