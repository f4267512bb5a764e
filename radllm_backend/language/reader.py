"""The language model that reads the prompts: in numpy on a CPU, in PyTorch on a GPU."""

from __future__ import annotations

import shutil
from collections.abc import Collection, Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from functools import lru_cache, partial
from importlib.util import find_spec
from pathlib import Path
from typing import Protocol

import numpy as np

from radllm_backend.errors import RadllmError, counted
from radllm_backend.features.arrays import Float32Array
from radllm_backend.files import read_json
from radllm_backend.language.adapters import Adapter
from radllm_backend.language.base_models import BaseModelFolder, load_tokenizer, tokens_of
from radllm_backend.language.blas import cores, one_thread, row_period
from radllm_backend.language.llama import Llama
from radllm_backend.language.packs import MOST, Pack, packs
from radllm_backend.language.prompt import Readout
from radllm_backend.language.shape import LlamaShape
from radllm_backend.language.weights import MappedWeights
from radllm_backend.records import Progress

_PROMPTS_KEPT = 1024
"""Tokenised: what variants cost is asked before they are scored."""


class PromptReader(Protocol):
    """Prompts in, hidden states or log-odds of malignancy out; a prompt's do not depend on what is read with it."""

    @property
    def depth(self) -> int:
        """How many layers the base model has."""

    def tokenise(self, prompt: str) -> list[int]:
        """Token numbers of a prompt; RadllmError where the model cannot read it (`base_models.tokens_of`)."""

    def effort(self, prompts: Sequence[str]) -> float:
        """What reading prompts together costs; in no unit, for comparison with the effort of other prompts."""

    def score(self, prompts: Sequence[str], progress: Progress | None = None) -> list[float]:
        """Log-odds of malignancy by the adapter's head, one a prompt."""

    def embed(
        self, prompts: Sequence[str], readouts: Collection[Readout], progress: Progress | None = None
    ) -> dict[Readout, Float32Array]:
        """The enhanced features, each [prompts × hidden size]: all of them from one pass."""


def open_reader(base: BaseModelFolder, adapter: Adapter | None = None, layers: int | None = None) -> PromptReader:
    """The base model, ready to read: on this computer's GPU where PyTorch finds one, otherwise on its CPU.

    Args:
        base: a verified base model.
        adapter: a trained adapter and its head; None for the base model as it is.
        layers: how many layers are read at most; None for all.

    Raises:
        RadllmError: the base model is damaged, of a kind that cannot be read, or does not fit the adapter.
    """
    if may_have_gpu():
        from radllm_backend.language.torch_reader import TorchReader, best_device

        device = best_device()
        if device.type != "cpu":
            return TorchReader.opened(base, adapter, layers).to(device)
    return NumpyReader(base, adapter, layers)


def may_have_gpu() -> bool:
    """Whether it is worth importing PyTorch to look for a GPU: it is installed, and so is NVIDIA's driver."""
    driver = Path("/proc/driver/nvidia/version").exists() or shutil.which("nvidia-smi")
    return bool(driver) and find_spec("torch") is not None


class NumpyReader:
    """Reads on a CPU. What several prompts begin with is read once (`packs`), and packs are read side by side."""

    def __init__(self, base: BaseModelFolder, adapter: Adapter | None = None, layers: int | None = None) -> None:
        """As `open_reader`."""
        shape = LlamaShape.of(read_json(base.folder / "config.json"), base.folder.name)
        self.depth = shape.layers
        """How many layers the base model has."""
        self._tokens = lru_cache(_PROMPTS_KEPT)(
            partial(tokens_of, load_tokenizer(base), most=shape.most_tokens, vocabulary=shape.vocabulary)
        )
        with one_thread():
            self._llama = Llama(shape, MappedWeights(base.folder), layers, adapter)
        self._layers = layers or shape.layers
        self._head = adapter.head if adapter else None

    def tokenise(self, prompt: str) -> list[int]:
        """Token numbers of a prompt; RadllmError where the model cannot read it (`base_models.tokens_of`)."""
        return self._tokens(prompt)

    def effort(self, prompts: Sequence[str]) -> float:
        """What reading prompts together costs, in tokens."""
        return sum(pack.effort for pack in self._packs(self._distinct(prompts)))

    def score(self, prompts: Sequence[str], progress: Progress | None = None) -> list[float]:
        """Log-odds of malignancy by the adapter's head, one a prompt.

        Raises:
            RadllmError: the base model is read as it is, without a head.
        """
        if self._head is None:
            raise RadllmError("The base model has no head of its own: give an adapter, or read its hidden states.")
        weight, bias = self._head
        last = Readout(self.depth, "last")
        states = self.embed(prompts, [last], progress)[last]
        # Each row by itself: of many, a product's last bits depend on their number.
        return [float(row @ weight) + bias for row in states]

    def embed(
        self, prompts: Sequence[str], readouts: Collection[Readout], progress: Progress | None = None
    ) -> dict[Readout, Float32Array]:
        """The enhanced features, each [prompts × hidden size]: all of them from one pass.

        Raises:
            RadllmError: a readout is of more layers than are read.
        """
        for readout in readouts:
            if not 1 <= readout.layers <= self._layers:
                most = counted(self._layers, "layer")
                raise RadllmError(f"This model reads at most {most} of its base model, and not {readout.layers}.")
        texts = sorted(dict.fromkeys(prompts), key=self.tokenise)
        found = np.empty((len(readouts), len(texts), self._llama.shape.width), dtype=np.float32)
        done = 0
        for states in self._read(self._packs([self.tokenise(text) for text in texts]), tuple(readouts)):
            found[:, done : done + states.shape[1]] = states
            done += states.shape[1]
            if progress:
                progress("Reading prompts", done / len(texts))
        where = {text: index for index, text in enumerate(texts)}
        rows = [where[prompt] for prompt in prompts]
        return {readout: states[rows] for readout, states in zip(readouts, found, strict=True)}

    def _distinct(self, prompts: Sequence[str]) -> list[list[int]]:
        return [self.tokenise(text) for text in dict.fromkeys(prompts)]

    def _packs(self, tokens: Sequence[list[int]]) -> list[Pack]:
        """As few as there are cores for, or more where they would be too large."""
        period = row_period()
        found = list(packs(tokens, period=period, most=MOST))
        if len(found) < min(cores(), len(tokens)):
            share = -(-sum(len(pack.tokens) for pack in found) // cores())
            found = list(packs(tokens, period=period, most=min(share, MOST)))
        return found

    def _read(self, found: Sequence[Pack], readouts: Sequence[Readout]) -> Iterator[Float32Array]:
        """Of each pack the readouts, [readouts × prompts × hidden size]."""
        if len(found) < 2:
            yield from (self._pooled(pack, readouts) for pack in found)
            return
        with ThreadPoolExecutor(min(cores(), len(found))) as beside:
            try:
                yield from beside.map(lambda pack: self._pooled(pack, readouts), found)
            finally:
                beside.shutdown(cancel_futures=True)

    def _pooled(self, pack: Pack, readouts: Sequence[Readout]) -> Float32Array:
        pooled = np.empty((len(readouts), len(pack.prompts), self._llama.shape.width), dtype=np.float32)
        with one_thread():
            for layers, states in self._llama.states(pack.filled(), {readout.layers for readout in readouts}):
                for one, readout in zip(pooled, readouts, strict=True):
                    if readout.layers == layers:
                        for row, tokens in zip(one, pack.prompts, strict=True):
                            row[:] = states[tokens[-1]] if readout.pooling == "last" else states[tokens].mean(axis=0)
        return pooled
