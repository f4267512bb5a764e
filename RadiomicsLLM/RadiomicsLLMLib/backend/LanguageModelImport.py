"""PyTorch and transformers, imported on a thread of their own while Slicer's windows go on."""

from __future__ import annotations

import contextlib
import ctypes
import gc
import os
import sys
from collections.abc import Iterator
from importlib.util import find_spec
from pathlib import Path


def importLanguageModel() -> None:
    """Import what runs the language model; for a thread that is not the main one. Does nothing a second time."""
    if "transformers" in sys.modules and "torch" in sys.modules:
        return
    _openTorchLibrary()
    with _withoutCollections():
        import torch  # noqa: F401
        from transformers import LlamaForCausalLM, LlamaForSequenceClassification, PreTrainedTokenizerFast  # noqa: F401


def _openTorchLibrary() -> None:
    """Let the system load PyTorch's libraries, 400 MB, beforehand.

    Python's import would hold its lock, for which all other threads wait, for a quarter of a second; a foreign function
    is called without it.
    """
    torch = find_spec("torch")
    if os.name != "posix" or torch is None or not torch.origin:
        return
    ending = "dylib" if sys.platform == "darwin" else "so"
    # Whatever goes wrong here goes wrong again, with its reason, where torch is imported.
    with contextlib.suppress(OSError, AttributeError):
        load = ctypes.CDLL(None).dlopen
        load.restype, load.argtypes = ctypes.c_void_p, (ctypes.c_char_p, ctypes.c_int)
        for name in ("libtorch_cpu", "libtorch_python"):
            load(os.fsencode(Path(torch.origin).parent / "lib" / f"{name}.{ending}"), os.RTLD_NOW)


@contextlib.contextmanager
def _withoutCollections() -> Iterator[None]:
    """No search for garbage meanwhile, and afterwards none among what was imported.

    It visits each of a million objects, and all threads wait for a tenth of a second or two, several times.
    """
    wasEnabled = gc.isenabled()
    gc.disable()
    try:
        yield
    finally:
        gc.freeze()
        if wasEnabled:
            gc.enable()
