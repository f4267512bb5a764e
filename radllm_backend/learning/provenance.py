"""Where a figure comes from: the folder that keeps what is finished, the versions, and the machine."""

from __future__ import annotations

import os
import platform
from importlib import metadata
from pathlib import Path

import torch

from radllm_backend import __version__
from radllm_backend.errors import RadllmError
from radllm_backend.language.linear import adapters_note
from radllm_backend.language.torch_reader import best_device, trains_in_bf16

_VERSIONED = ("torch", "transformers", "peft", "scikit-learn", "lightgbm", "numpy")


def make_work_folder(work: Path) -> None:
    """The folder for what is finished; RadllmError where it cannot be made."""
    try:
        work.mkdir(parents=True, exist_ok=True)
    except OSError as error:
        raise RadllmError(f"The folder {work} cannot be made ({error.strerror}): choose another output.") from error


def versions_used() -> dict[str, str]:
    """Versions of the packages that training and evaluation depend on."""
    return {"radllm_backend": __version__, **{name: metadata.version(name) for name in _VERSIONED}}


def hardware() -> str:
    """The machine in words: system, processor, cores, the precision that training computes in, and what fell back."""
    device = best_device()
    precision = "bf16" if trains_in_bf16(device) else "fp32"
    where = f", {torch.cuda.get_device_name()}" if device.type == "cuda" else ""
    machine = f"{platform.system()} {platform.machine()}, {os.cpu_count()} cores{where}, {precision}"
    return ", ".join(filter(None, [machine, adapters_note()]))
