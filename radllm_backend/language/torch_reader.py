"""The language model that reads the prompts: a LLaMA-family backbone with LoRA on all linear layers and a linear head.

The head is a linear layer in fp32 on the last token's hidden state (Ra et al. 2025): it can only emit a number.
"""

from __future__ import annotations

import math
import warnings
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import AbstractContextManager, nullcontext
from dataclasses import dataclass
from functools import lru_cache, partial
from typing import Any

import torch
from torch import Tensor, nn

from radllm_backend.errors import RadllmError
from radllm_backend.language import distributed, llama
from radllm_backend.language.base_models import BaseModelFolder, load_backbone, load_tokenizer
from radllm_backend.language.linear import quicken_adapters
from radllm_backend.language.packs import packs, prepare
from radllm_backend.language.prompt import Pooling
from radllm_backend.records import Progress

LINEAR_LAYERS = ("q_proj", "k_proj", "v_proj", "o_proj", "gate_proj", "up_proj", "down_proj")
"""Every linear layer of a LLaMA block."""

_HEAD = "head."
_GPU_BATCH = 32
_PROMPTS_KEPT = 1024
"""Tokenised: what variants cost is asked before they are scored."""

"""Called with (done, total) prompts."""


@dataclass(frozen=True)
class AdapterShape:
    """Size of a LoRA adapter (Hu et al. 2022): weights change by alpha / rank · B · A."""

    rank: int = 16
    alpha: int = 32


class PromptReader(nn.Module):
    """Prompts in, log-odds of malignancy out: the language model as it is, or with a trained adapter added in.

    On a CPU what several prompts begin with is read once, and still each score is the same to the last bit whatever
    else is scored with it (`packs`).
    """

    def __init__(self, base: BaseModelFolder) -> None:
        """The base model with a head of zeros.

        Args:
            base: the backbone's folder, verified.
        """
        super().__init__()
        self._tokenizer = load_tokenizer(base)
        self._tokens = lru_cache(_PROMPTS_KEPT)(self._tokens_of)
        self.backbone: Any = self._load(base)  # Llama, or a model of transformers or peft, which say little of types
        self.max_tokens = int(self.backbone.config.max_position_embeddings)
        self.head = nn.Linear(self.backbone.config.hidden_size, 1, dtype=torch.float32)
        nn.init.zeros_(self.head.weight)
        nn.init.zeros_(self.head.bias)
        self.eval()

    @staticmethod
    def _load(base: BaseModelFolder) -> Any:
        return llama.load(base) or prepare(load_backbone(base))

    def absorb(self, weights: Mapping[str, Tensor], shape: AdapterShape) -> None:
        """Add a trained adapter into the base weights and take its head.

        As peft's `merge_and_unload` does, to the last bit, without the seconds that importing peft takes.

        Raises:
            RadllmError: a tensor is missing, unknown or of another shape.
        """
        layers = {
            name: layer for name, layer in self.backbone.named_modules() if name.rpartition(".")[2] in LINEAR_LAYERS
        }
        own = {_HEAD + name: tuple(tensor.shape) for name, tensor in self.head.state_dict().items()}
        for name, layer in layers.items():
            own[_lora(name, "A")] = (shape.rank, layer.in_features)
            own[_lora(name, "B")] = (layer.out_features, shape.rank)
        _refuse_misfit(own, weights)
        with torch.no_grad():
            for name, layer in layers.items():
                lora_A, lora_B = (weights[_lora(name, part)].float() for part in "AB")
                layer.weight = nn.Parameter(layer.weight + lora_B @ lora_A * (shape.alpha / shape.rank), False)
            self.head.load_state_dict({name: weights[_HEAD + name] for name in self.head.state_dict()})

    @property
    def device(self) -> torch.device:
        return self.head.weight.device

    def tokenise(self, prompt: str) -> list[int]:
        """Token numbers of a prompt; RadllmError where the model cannot read that many."""
        return self._tokens(prompt)

    def _tokens_of(self, prompt: str) -> list[int]:
        tokens: list[int] = self._tokenizer.encode(prompt).ids
        if len(tokens) > self.max_tokens:
            raise RadllmError(
                f"The prompt has {len(tokens)} tokens and the base model reads {self.max_tokens}: use fewer features."
            )
        return tokens

    def forward(self, prompts: Sequence[list[int]]) -> Tensor:
        """Log-odds [prompts] of tokenised prompts, in fp32, with gradients."""
        log_odds: Tensor = self.head(self._last_hidden(prompts).float())
        return log_odds.squeeze(1)

    def score(self, prompts: Sequence[str], progress: Progress | None = None) -> list[float]:
        """Log-odds of malignancy, one a prompt."""
        with torch.inference_mode():
            scores = {text: float(self.head(own[-1].float())) for text, own in self._states(prompts, progress)}
        return [scores[prompt] for prompt in prompts]

    def embed(self, prompts: Sequence[str], progress: Progress | None = None) -> dict[Pooling, Tensor]:
        """The enhanced features: the last layer's hidden state of the last token, and the mean of all tokens'.

        Either is [prompts × hidden size], fp32 on the CPU.
        """
        states = self._states(prompts, progress)
        pooled = {text: (own[-1].float().cpu(), own.float().mean(dim=0).cpu()) for text, own in states}
        last, mean = (torch.stack([pooled[prompt][index] for prompt in prompts]) for index in (0, 1))
        return {"last": last, "mean": mean}

    def effort(self, prompts: Sequence[str]) -> float:
        """What scoring prompts together costs; in no unit, for comparison with the effort of other prompts."""
        tokens = [self.tokenise(text) for text in dict.fromkeys(prompts)]
        if self.device.type != "cpu":
            return float(math.ceil(len(tokens) / _GPU_BATCH))  # a batch takes little longer than one prompt
        return float(sum(pack.effort for pack in packs(tokens)))

    def _states(self, prompts: Sequence[str], progress: Progress | None) -> Iterator[tuple[str, Tensor]]:
        """Each different prompt with the last layer's hidden states, [tokens × hidden size]."""
        # What begins alike follows each other, for packs; or what is equally long, for batches without much padding.
        order = self.tokenise if self.device.type == "cpu" else lambda text: len(self.tokenise(text))
        texts = sorted(dict.fromkeys(prompts), key=order)
        done = 0
        self.eval()
        for read in self._passes([self.tokenise(text) for text in texts]):
            with torch.inference_mode():
                states = read()
            yield from zip(texts[done:], states, strict=False)
            done += len(states)
            if progress:
                progress("Reading prompts", done / len(texts))

    def _passes(self, prompts: Sequence[list[int]]) -> list[Callable[[], list[Tensor]]]:
        """Each reads the next of the prompts."""
        if self.device.type == "cpu":
            return [partial(pack.read, self.backbone) for pack in packs(prompts)]
        starts = range(0, len(prompts), _GPU_BATCH)
        return [partial(self._read_each, prompts[start : start + _GPU_BATCH]) for start in starts]

    def _read_each(self, prompts: Sequence[list[int]]) -> list[Tensor]:
        states, lengths = self._read(prompts)
        return [hidden[:length] for hidden, length in zip(states, lengths.tolist(), strict=True)]

    def _last_hidden(self, prompts: Sequence[list[int]]) -> Tensor:
        if (
            self.device.type == "cpu" and not distributed.sharded()
        ):  # the parts of a model wait for each other at a pass
            order = sorted(range(len(prompts)), key=prompts.__getitem__)
            last = [states[-1] for pack in packs(prompts) for states in pack.read(self.backbone)]
            return torch.stack(last)[torch.tensor(order).argsort()]
        states, lengths = self._read(prompts)
        return states[torch.arange(len(prompts), device=self.device), lengths - 1]

    def _read(self, prompts: Sequence[list[int]]) -> tuple[Tensor, Tensor]:
        """Hidden states [prompts × longest × hidden size] and the number of tokens of each prompt."""
        # Padded on the right under causal attention, no real token ever sees the padding: no mask is needed.
        lengths = torch.tensor([len(tokens) for tokens in prompts], device=self.device)
        padded = torch.zeros(len(prompts), int(lengths.max()), dtype=torch.long, device=self.device)
        for row, tokens in enumerate(prompts):
            padded[row, : len(tokens)] = torch.tensor(tokens, device=self.device)
        return self.backbone(input_ids=padded, use_cache=False).last_hidden_state, lengths


class LoraClassifier(PromptReader):
    """The language model with an adapter that can be trained."""

    def __init__(self, base: BaseModelFolder, shape: AdapterShape = AdapterShape(), *, seed: int = 0) -> None:
        """A fresh adapter, which changes nothing yet, and a head of zeros.

        Args:
            base: the backbone's folder, verified.
            shape: rank and scale of the adapter.
            seed: for the adapter's random A matrices.
        """
        from peft import LoraConfig, get_peft_model

        super().__init__(base)
        self.shape = shape
        self._four_bit = base.four_bit
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

    @staticmethod
    def _load(base: BaseModelFolder) -> Any:
        return prepare(load_backbone(base))

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
        head = {_HEAD + name: tensor for name, tensor in self.head.state_dict().items()}
        return {name: tensor.detach() for name, tensor in {**adapter, **head}.items()}

    def load_weights(self, weights: dict[str, Tensor]) -> None:
        """Adapter and head from `weights`; RadllmError where a tensor is missing, unknown or of another shape."""
        own = self._own_tensors()
        _refuse_misfit({name: tuple(tensor.shape) for name, tensor in own.items()}, weights)
        for name, tensor in own.items():
            tensor.copy_(distributed.placed_like(weights[name], tensor))

    def merge(self) -> None:
        """Add the adapter into the base weights: an unmerged adapter is 1.6 times slower.

        Base weights of 4 bits stay as they are: the sum would be rounded to 4 bits anew, and the scores with it.
        """
        if not self._four_bit:
            self.backbone = self.backbone.merge_and_unload()

    def autocast(self) -> AbstractContextManager[Any]:
        """bf16 for training where that is much faster, otherwise nothing."""
        if trains_in_bf16(self.device):
            return torch.autocast(self.device.type, dtype=torch.bfloat16)
        return nullcontext()


def _lora(layer: str, part: str) -> str:
    """The name that peft gives one of the two matrices of a layer's adapter."""
    return f"base_model.model.{layer}.lora_{part}.weight"


def _refuse_misfit(expected: Mapping[str, tuple[int, ...]], weights: Mapping[str, Tensor]) -> None:
    given = {name: tuple(tensor.shape) for name, tensor in weights.items()}
    if expected != given:
        wrong = sorted(name for name in expected.keys() | given.keys() if expected.get(name) != given.get(name))
        raise RadllmError(
            f"The adapter does not fit its base model (tensor '{wrong[0]}'): use the base model it was trained on."
        )


def stored_precision(weights: dict[str, Tensor]) -> dict[str, Tensor]:
    """The weights as a bundle keeps them: adapter in fp16 (half the size), head in fp32 (so scores stay distinct)."""
    return {name: tensor if name.startswith(_HEAD) else tensor.half() for name, tensor in weights.items()}


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
