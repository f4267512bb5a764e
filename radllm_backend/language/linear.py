"""Linear layers on a CPU by the faster of the two libraries that PyTorch has for them.

PyTorch multiplies matrices in fp32 by MKL, which computes with half of the width that AMD's processors with AVX-512
have. oneDNN, by which it multiplies those in bf16, uses all of it, and is no slower on Intel's. PyTorch's operator for
it and the inside of peft's layers are not public: each is compared once a process with the public way to the same
numbers, which is taken where they differ.
"""

from __future__ import annotations

import logging
from functools import cache
from importlib import metadata
from typing import Any

import torch
from torch import Tensor, nn
from torch.nn import functional

_CLOSE = 1e-4
_LOGGER = logging.getLogger(__name__)


class OneDnnLinear(nn.Linear):
    """A linear layer without a bias. Where its own weight is trained, it is PyTorch's."""

    def forward(self, rows: Tensor) -> Tensor:
        if not _is_for_onednn(self, rows):
            return functional.linear(rows, self.weight)
        if torch.is_grad_enabled() and rows.requires_grad:
            # PyTorch says nothing of the types of apply.
            gradual: Tensor = _FrozenLinearFunction.apply(rows, self.weight)  # type: ignore[no-untyped-call]
            return gradual
        return _by_onednn(rows, self.weight)


class _FrozenLinearFunction(torch.autograd.Function):
    """A linear layer through which gradients go to what is below it."""

    @staticmethod
    def forward(context: Any, rows: Tensor, weight: Tensor) -> Tensor:
        context.save_for_backward(weight)
        return _by_onednn(rows, weight)

    @staticmethod
    def backward(context: Any, gradient: Tensor) -> tuple[Tensor, None]:
        (weight,) = context.saved_tensors
        return _by_onednn(gradient.contiguous(), weight.t()), None


class _LoraLinearFunction(torch.autograd.Function):
    """A frozen linear layer and its adapter in one: rows W' + scale rows A' B' (Hu et al., ICLR 2022, equation 3).

    The shapes are rows [... × in_features], W [out_features × in_features], A [rank × in_features] and
    B [out_features × rank]. One step where peft takes six: what has out_features columns is written once, and only what
    has rank columns is kept.
    """

    @staticmethod
    def forward(context: Any, rows: Tensor, weight: Tensor, lora_A: Tensor, lora_B: Tensor, scale: float) -> Tensor:
        flat = rows.flatten(0, -2)
        in_rank = _by_onednn(flat, lora_A)
        context.save_for_backward(flat, weight, lora_A, lora_B, in_rank)
        context.scale = scale
        summed = _by_onednn(flat, weight).addmm_(in_rank, lora_B.t(), alpha=scale)
        product: Tensor = summed.unflatten(0, rows.shape[:-1])
        return product

    @staticmethod
    def backward(context: Any, gradient: Tensor) -> tuple[Tensor | None, None, Tensor, Tensor, None]:
        flat, weight, lora_A, lora_B, in_rank = context.saved_tensors
        flat_gradient = gradient.flatten(0, -2).contiguous()
        rank_gradient = _by_onednn(flat_gradient, lora_B.t()).mul_(context.scale)
        below = None
        if context.needs_input_grad[0]:
            below = _by_onednn(flat_gradient, weight.t()).addmm_(rank_gradient, lora_A)
            below = below.unflatten(0, gradient.shape[:-1])
        return below, None, rank_gradient.t() @ flat, (flat_gradient.t() @ in_rank).mul_(context.scale), None


def quicken(model: nn.Module) -> None:
    """Let the plain linear layers of a model without a bias be `OneDnnLinear`; their weights stay where they are."""
    for module in model.modules():
        if type(module) is nn.Linear and module.bias is None:
            module.__class__ = OneDnnLinear


def quicken_adapters(model: nn.Module) -> None:
    """Let the adapters that peft put on `OneDnnLinear` layers be trained in one step, where that gives peft's numbers.

    Where it does not, they stay peft's own layers, which take longer, and the log says so.
    """
    if _has_onednn() and _trains_as_peft():
        _quicken_adapters(model)


def _quicken_adapters(model: nn.Module) -> None:
    from peft.tuners.lora.layer import Linear as LoraLinear

    for module in model.modules():
        if type(module) is LoraLinear and type(module.base_layer) is OneDnnLinear:
            module.__class__ = _onednn_lora_linear()


def adapters_note() -> str:
    """For the provenance of a training: that peft's own layers had to be taken; empty where that was not so."""
    return "" if _trains_as_peft.cache_info().currsize == 0 or _trains_as_peft() else "adapters by peft's own layers"


@cache
def _onednn_lora_linear() -> type:
    """peft's layer with another way to the same numbers; made when it is needed, for importing peft takes seconds."""
    from peft.tuners.lora.layer import Linear as LoraLinear

    class OneDnnLoraLinear(LoraLinear):
        def forward(self, x: Tensor, *more: Any, **named: Any) -> Tensor:
            if not (torch.is_grad_enabled() and self._is_simple(x)):
                whole: Tensor = super().forward(x, *more, **named)
                return whole
            (name,) = self.active_adapters
            lora_A, lora_B = self.lora_A[name].weight, self.lora_B[name].weight
            weight, scale = self.base_layer.weight, self.scaling[name]
            # PyTorch says nothing of the types of apply.
            gradual: Tensor = _LoraLinearFunction.apply(x, weight, lora_A, lora_B, scale)  # type: ignore[no-untyped-call]
            return gradual

        def _is_simple(self, rows: Tensor) -> bool:
            """One adapter, nothing beside its two matrices, on a layer that oneDNN reads."""
            names = self.active_adapters
            return (
                len(names) == 1
                and not (self.disable_adapters or self.merged or self.lora_variant)
                and not any(self.lora_bias.values())
                and isinstance(self.lora_dropout[names[0]], nn.Identity)
                and self.lora_A[names[0]].weight.dtype is torch.float32
                and _is_for_onednn(self.base_layer, rows)
            )

    return OneDnnLoraLinear


@cache
def _trains_as_peft() -> bool:
    """Whether a small layer says and learns in our step what it does in peft's."""
    try:
        with torch.random.fork_rng(devices=[]):  # the seed of a training is for its own layers
            layer = _small_adapter()
        expected = _output_and_gradients(layer["proj"])
        _quicken_adapters(layer)
        found = _output_and_gradients(layer["proj"])
    except Exception as error:  # whatever another version of peft raises where it has changed
        reason = f"{type(error).__name__}: {error}"
    else:
        if all(torch.allclose(*pair, rtol=_CLOSE, atol=_CLOSE) for pair in zip(found, expected, strict=True)):
            return True
        reason = "other numbers"
    _LOGGER.warning(
        "Adapters are trained by the layers of peft %s itself, which takes longer: our way to the same numbers does "
        "not fit it (%s).",
        metadata.version("peft"),
        reason,
    )
    return False


def _small_adapter() -> Any:
    """A layer of peft's in which nothing is zero."""
    from peft import LoraConfig, get_peft_model

    base = nn.ModuleDict({"proj": OneDnnLinear(8, 6, bias=False).requires_grad_(False)})
    adapted: Any = get_peft_model(base, LoraConfig(r=2, lora_alpha=6, target_modules=["proj"]))
    layer = adapted.get_base_model()
    with torch.no_grad():
        for number, parameter in enumerate(layer.parameters(), 1):
            parameter.copy_(_few_numbers(*parameter.shape) * number)
    return layer


def _output_and_gradients(layer: Any) -> list[Tensor]:
    """What an adapter says of three rows, and the gradients of its matrices and of the rows."""
    matrices = [parameter for parameter in layer.parameters() if parameter.requires_grad]
    with torch.enable_grad():
        rows = _few_numbers(3, layer.in_features).requires_grad_()
        said = layer(rows)
        gradients = torch.autograd.grad((said * _few_numbers(*said.shape).cos()).sum(), [*matrices, rows])
    return [said.detach(), *gradients]


@cache
def _has_onednn() -> bool:
    """Whether this PyTorch and this processor have it, and it computes what is expected."""
    if torch.backends.cpu.get_cpu_capability() != "AVX512" or not torch.backends.mkldnn.is_available():
        return False
    with torch.inference_mode():
        rows, weight = _few_numbers(17, 48), _few_numbers(32, 48)
        try:
            return torch.allclose(_by_onednn(rows, weight), functional.linear(rows, weight), atol=_CLOSE)
        except Exception:  # the operator is not a public one: another version of PyTorch may lack it
            return False


def _few_numbers(*shape: int) -> Tensor:
    return torch.linspace(-1, 1, torch.Size(shape).numel()).reshape(shape).sin()


def _is_for_onednn(layer: nn.Module, rows: Tensor) -> bool:
    """In fp32 on a CPU, the layer's weight without a gradient."""
    weight = layer.weight
    return (
        rows.dtype is weight.dtype is torch.float32
        and rows.is_cpu
        and not torch.is_autocast_enabled("cpu")
        and not (torch.is_grad_enabled() and weight.requires_grad)
        and _has_onednn()
    )


def _by_onednn(rows: Tensor, weight: Tensor) -> Tensor:
    """Rows [... × in_features] by a weight [out_features × in_features]."""
    product: Tensor = torch.ops.mkldnn._linear_pointwise(rows, weight, None, "none", [], "")
    return product
