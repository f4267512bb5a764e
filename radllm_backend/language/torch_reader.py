"""The language model in PyTorch: for training, with a LoRA adapter that can be trained, and for reading on a GPU.

The head is a linear layer in fp32 on the last token's hidden state (Ra et al. 2025): it can only emit a number.
"""

from __future__ import annotations

import math
import warnings
from collections.abc import Callable, Collection, Iterator, Sequence
from contextlib import AbstractContextManager, nullcontext
from functools import lru_cache, partial
from typing import Any

import torch
from torch import Tensor, nn

from radllm_backend.errors import RadllmError, counted
from radllm_backend.features.arrays import Float32Array
from radllm_backend.language import distributed, torch_packs
from radllm_backend.language.adapters import HEAD, LINEAR_LAYERS, Adapter, AdapterShape, refuse_misfit
from radllm_backend.language.backbone import load_backbone
from radllm_backend.language.base_models import BaseModelFolder, load_tokenizer, tokens_of
from radllm_backend.language.linear import quicken_adapters
from radllm_backend.language.packs import packs
from radllm_backend.language.prompt import Readout
from radllm_backend.language.torch_packs import prepare
from radllm_backend.records import Progress

_GPU_BATCH = 32
_USUAL = AdapterShape()
_PROMPTS_KEPT = 1024
"""Tokenised: what variants cost is asked before they are scored."""


class TorchReader(nn.Module):
    """Prompts in, hidden states or log-odds out, in batches of equally long prompts: `reader.PromptReader` on a GPU."""

    def __init__(self, base: BaseModelFolder, layers: int | None = None) -> None:
        """The base model with a head of zeros.

        Args:
            base: the backbone's folder, verified.
            layers: how many layers are read at most; None for all.
        """
        super().__init__()
        self.backbone: Any = prepare(load_backbone(base))  # of transformers or peft, which say little of types
        self.depth = int(self.backbone.config.num_hidden_layers)
        """How many layers the base model has."""
        most, vocabulary = (
            int(getattr(self.backbone.config, name)) for name in ("max_position_embeddings", "vocab_size")
        )
        self._tokens = lru_cache(_PROMPTS_KEPT)(
            partial(tokens_of, load_tokenizer(base), most=most, vocabulary=vocabulary)
        )
        self.head = nn.Linear(self.backbone.config.hidden_size, 1, dtype=torch.float32)
        nn.init.zeros_(self.head.weight)
        nn.init.zeros_(self.head.bias)
        if layers is not None and not 1 <= layers <= self.depth:
            raise RadllmError(
                f"The base model has {counted(self.depth, 'layer')}, and {layers} cannot be read: name fewer."
            )
        self.backbone.layers = self.backbone.layers[:layers]
        self.eval()

    @classmethod
    def opened(cls, base: BaseModelFolder, adapter: Adapter | None, layers: int | None) -> TorchReader:
        """As `reader.open_reader`, on the CPU as yet."""
        reader = cls(base, layers)
        if adapter:
            reader.absorb(adapter)
        return reader

    def absorb(self, adapter: Adapter) -> None:
        """Add a trained adapter into the base weights and take its head.

        As peft's `merge_and_unload` does, without the seconds that importing peft takes.

        Raises:
            RadllmError: a tensor is missing, unknown or of another shape.
        """
        layers = {
            name: layer for name, layer in self.backbone.named_modules() if name.rpartition(".")[2] in LINEAR_LAYERS
        }
        adapter.check(
            {name: (layer.out_features, layer.in_features) for name, layer in layers.items()},
            self.backbone.config.hidden_size,
        )
        with torch.no_grad():
            for name, layer in layers.items():
                merged = adapter.added_to(name, layer.weight.detach().float().numpy())
                layer.weight = nn.Parameter(torch.from_numpy(merged), requires_grad=False)
            weight, bias = adapter.head
            self.head.weight.copy_(torch.from_numpy(weight)[None])
            self.head.bias.fill_(bias)

    @property
    def device(self) -> torch.device:
        return self.head.weight.device

    def tokenise(self, prompt: str) -> list[int]:
        """Token numbers of a prompt; RadllmError where the model cannot read it (`base_models.tokens_of`)."""
        return self._tokens(prompt)

    def score(self, prompts: Sequence[str], progress: Progress | None = None) -> list[float]:
        """Log-odds of malignancy, one a prompt."""
        scores: dict[str, float] = {}
        for texts, log_odds in self._batches(prompts, progress, self._log_odds):
            scores.update(zip(texts, log_odds.tolist(), strict=True))
        return [scores[prompt] for prompt in prompts]

    def embed(
        self, prompts: Sequence[str], readouts: Collection[Readout], progress: Progress | None = None
    ) -> dict[Readout, Float32Array]:
        """The enhanced features, each [prompts × hidden size]: all of them from one pass."""
        pooled: dict[str, Tensor] = {}
        for texts, states in self._batches(prompts, progress, lambda tokens: self._pooled(tokens, readouts)):
            pooled.update(zip(texts, states, strict=True))
        stacked = torch.stack([pooled[prompt] for prompt in prompts], dim=1).numpy()
        return dict(zip(readouts, stacked, strict=True))

    def effort(self, prompts: Sequence[str]) -> float:
        """In batches: one takes little longer than one prompt."""
        return float(math.ceil(len(set(prompts)) / _GPU_BATCH))

    def _batches(
        self, prompts: Sequence[str], progress: Progress | None, read: Callable[[Sequence[list[int]]], Tensor]
    ) -> Iterator[tuple[list[str], Tensor]]:
        """The different prompts, equally long ones together, and what was read of each of them."""
        texts = sorted(dict.fromkeys(prompts), key=lambda text: len(self.tokenise(text)))
        self.eval()
        for start in range(0, len(texts), _GPU_BATCH):
            batch = texts[start : start + _GPU_BATCH]
            with torch.inference_mode():
                states = read([self.tokenise(text) for text in batch])
            yield batch, states
            if progress:
                progress("Reading prompts", (start + len(batch)) / len(texts))

    def _log_odds(self, prompts: Sequence[list[int]]) -> Tensor:
        """In fp32, [prompts]."""
        log_odds: Tensor = self.head(self._last_of_each(prompts).float())
        return log_odds.squeeze(1)

    def _last_of_each(self, prompts: Sequence[list[int]]) -> Tensor:
        """The last layer's hidden state of the last token, [prompts × hidden size]."""
        padded, lengths = self._padded(prompts)
        states: Tensor = self.backbone(input_ids=padded, use_cache=False).last_hidden_state
        return states[torch.arange(len(prompts), device=self.device), lengths - 1]

    def _pooled(self, prompts: Sequence[list[int]], readouts: Collection[Readout]) -> Tensor:
        """[prompts × readouts × hidden size] on the CPU."""
        padded, lengths = self._padded(prompts)
        found = self.backbone(input_ids=padded, use_cache=False, output_hidden_states=True)
        *earlier, last = found.hidden_states
        pooled = []
        for readout in readouts:
            # The last one has been normalised already.
            reads_all = readout.layers == len(earlier)
            states = (last if reads_all else self.backbone.norm(earlier[readout.layers])).float()
            own = [rows[:length] for rows, length in zip(states, lengths.tolist(), strict=True)]
            pooled.append(torch.stack([one[-1] if readout.pooling == "last" else one.mean(dim=0) for one in own]))
        return torch.stack(pooled, dim=1).cpu()

    def _padded(self, prompts: Sequence[list[int]]) -> tuple[Tensor, Tensor]:
        """Token numbers [prompts × longest], and the number of tokens of each prompt."""
        # Padded on the right under causal attention, no real token ever sees the padding: no mask is needed.
        lengths = torch.tensor([len(tokens) for tokens in prompts], device=self.device)
        padded = torch.zeros(len(prompts), int(lengths.max()), dtype=torch.long, device=self.device)
        for row, tokens in enumerate(prompts):
            padded[row, : len(tokens)] = torch.tensor(tokens, device=self.device)
        return padded, lengths


class LoraClassifier(TorchReader):
    """The language model with an adapter that can be trained."""

    def __init__(self, base: BaseModelFolder, shape: AdapterShape = _USUAL, *, seed: int = 0) -> None:
        """A fresh adapter, which changes nothing yet, and a head of zeros.

        Args:
            base: the backbone's folder, verified.
            shape: rank and scale of the adapter.
            seed: for the adapter's random A matrices.
        """
        from peft import LoraConfig, get_peft_model

        super().__init__(base)
        config = LoraConfig(
            r=shape.rank,
            lora_alpha=shape.alpha,
            # No dropout: it doubles the time of a step on a CPU; weight decay and early stopping do its work.
            lora_dropout=0.0,
            target_modules=list(LINEAR_LAYERS),
            task_type="FEATURE_EXTRACTION",
        )
        torch.manual_seed(seed)
        with warnings.catch_warnings():
            # peft 0.21 asks transformers 5.20 by a name that will go; it is peft's to change.
            warnings.filterwarnings("ignore", "`is_gradient_checkpointing` is deprecated", FutureWarning)
            self.backbone = get_peft_model(self.backbone, config)
        quicken_adapters(self.backbone)
        self.eval()

    def forward(self, prompts: Sequence[list[int]]) -> Tensor:
        """Log-odds [prompts] of tokenised prompts, in fp32, with gradients."""
        return self._log_odds(prompts)

    def _last_of_each(self, prompts: Sequence[list[int]]) -> Tensor:
        # On a CPU by packs; but the parts of a sharded model wait for each other at a pass.
        if self.device.type != "cpu" or distributed.sharded():
            return super()._last_of_each(prompts)
        order = sorted(range(len(prompts)), key=prompts.__getitem__)
        last = [states[-1] for pack in packs(prompts) for states in torch_packs.read(pack, self.backbone)]
        return torch.stack(last)[torch.tensor(order).argsort()]

    @property
    def layers(self) -> list[nn.Module]:
        """The transformer's blocks, in their order."""
        return list(self.backbone.get_base_model().layers)

    def trainable(self) -> list[nn.Parameter]:
        """The parameters that training changes: the adapter's and the head's."""
        return [parameter for parameter in self.parameters() if parameter.requires_grad]

    def weights(self) -> dict[str, Tensor]:
        """Copy of the adapter and the head, by name, on the CPU. Only before `merge`."""
        return {name: distributed.whole(tensor).cpu().clone() for name, tensor in self._own_tensors().items()}

    def _own_tensors(self) -> dict[str, Tensor]:
        from peft import get_peft_model_state_dict

        adapter = get_peft_model_state_dict(self.backbone, save_embedding_layers=False)
        head = {HEAD + name: tensor for name, tensor in self.head.state_dict().items()}
        return {name: tensor.detach() for name, tensor in {**adapter, **head}.items()}

    def load_weights(self, weights: dict[str, Tensor]) -> None:
        """Adapter and head from `weights`; RadllmError where a tensor is missing, unknown or of another shape."""
        own = self._own_tensors()
        refuse_misfit({name: tuple(tensor.shape) for name, tensor in own.items()}, weights)
        for name, tensor in own.items():
            tensor.copy_(distributed.placed_like(weights[name], tensor))

    def autocast(self) -> AbstractContextManager[Any]:
        """bf16 for training where that is much faster, otherwise nothing."""
        if trains_in_bf16(self.device):
            return torch.autocast(self.device.type, dtype=torch.bfloat16)
        return nullcontext()


def stored_precision(weights: dict[str, Tensor]) -> dict[str, Tensor]:
    """The weights as a bundle keeps them: adapter in fp16 (half the size), head in fp32 (so scores stay distinct)."""
    return {name: tensor if name.startswith(HEAD) else tensor.half() for name, tensor in weights.items()}


def best_device() -> torch.device:
    """This process's CUDA GPU where there is one, otherwise the CPU."""
    return distributed.device()


def computes_bf16(device: torch.device) -> bool:
    """Whether the processor computes in bf16 rather than emulating it."""
    return trains_in_bf16(device) or (device.type == "cpu" and _cpu_has("avx512_bf16"))


def trains_in_bf16(device: torch.device) -> bool:
    """Whether bf16 is much faster than fp32: with AVX-512 alone it gains little, and its roundings move the result."""
    if device.type == "cuda":
        return bool(torch.cuda.is_bf16_supported(including_emulation=False))
    return _cpu_has("amx_tile")


def _cpu_has(instructions: str) -> bool:
    """Whether the processor has these instructions; no where PyTorch does not say."""
    try:
        return bool(torch.cpu.get_capabilities().get(instructions))
    except AttributeError:  # older versions have a function for each of them, which is not public
        return bool(getattr(torch.cpu, f"_is_{instructions}_supported", bool)())
