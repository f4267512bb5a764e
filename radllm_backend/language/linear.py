"""Linear layers on a CPU by the faster of the two libraries that PyTorch has for them.

PyTorch multiplies matrices in fp32 by MKL, which computes with half of the width that AMD's processors with AVX-512
have. oneDNN, by which it multiplies those in bf16, uses all of it, and is no slower on Intel's.
"""

from __future__ import annotations

from functools import cache
from typing import Any, cast

import torch
from torch import Tensor, nn
from torch.nn import functional

_CLOSE = 1e-4


class Linear(nn.Linear):
    """A linear layer without a bias. Where its own weight is trained, it is PyTorch's."""

    def forward(self, rows: Tensor) -> Tensor:
        if not self._is_read(rows) or not _has_onednn():
            return functional.linear(rows, self.weight)
        if torch.is_grad_enabled() and rows.requires_grad:
            gradual: Tensor = _Frozen.apply(rows, self.weight)
            return gradual
        return _by_onednn(rows, self.weight)

    def _is_read(self, rows: Tensor) -> bool:
        """In fp32 on a CPU, its weight without a gradient."""
        return (
            rows.dtype is self.weight.dtype is torch.float32
            and rows.is_cpu
            and not torch.is_autocast_enabled("cpu")
            and not (torch.is_grad_enabled() and self.weight.requires_grad)
        )


class _Frozen(torch.autograd.Function):
    """A linear layer through which gradients go to what is below it."""

    @staticmethod
    def forward(context: Any, rows: Tensor, weight: Tensor) -> Tensor:
        context.save_for_backward(weight)
        return _by_onednn(rows, weight)

    @staticmethod
    def backward(context: Any, gradient: Tensor) -> tuple[Tensor, None]:
        (weight,) = context.saved_tensors
        return _by_onednn(gradient.contiguous(), weight.t()), None


class _Adapted(torch.autograd.Function):
    """A frozen linear layer and its adapter in one: rows W' + scale rows A' B' (Hu et al., ICLR 2022, equation 3).

    One step where peft takes six: the wide results are written once, and only what is as narrow as the adapter is kept.
    """

    @staticmethod
    def forward(context: Any, rows: Tensor, weight: Tensor, down: Tensor, up: Tensor, scale: float) -> Tensor:
        flat = rows.flatten(0, -2)
        narrow = _by_onednn(flat, down)
        context.save_for_backward(flat, weight, down, up, narrow)
        context.scale = scale
        return _by_onednn(flat, weight).addmm_(narrow, up.t(), alpha=scale).unflatten(0, rows.shape[:-1])

    @staticmethod
    def backward(context: Any, gradient: Tensor) -> tuple[Tensor | None, None, Tensor, Tensor, None]:
        flat, weight, down, up, narrow = context.saved_tensors
        wide = gradient.flatten(0, -2).contiguous()
        inner = _by_onednn(wide, up.t()).mul_(context.scale)
        below = None
        if context.needs_input_grad[0]:
            below = _by_onednn(wide, weight.t()).addmm_(inner, down).unflatten(0, gradient.shape[:-1])
        return below, None, inner.t() @ flat, (wide.t() @ narrow).mul_(context.scale), None


def quicken(model: Any) -> None:
    """Let the plain linear layers of a model without a bias be `Linear`; their weights stay where they are."""
    for module in model.modules():
        if type(module) is nn.Linear and module.bias is None:
            module.__class__ = Linear


def quicken_adapters(model: Any) -> None:
    """Let the adapters that peft put on `Linear` layers be trained as `_Adapted` where that can be."""
    from peft.tuners.lora.layer import Linear as Plain

    for module in model.modules():
        if type(module) is Plain and type(module.base_layer) is Linear:
            module.__class__ = _adapted_layer()


@cache
def _adapted_layer() -> type:
    """peft's layer with another way to the same numbers; made when it is needed, for importing peft takes seconds."""
    from peft.tuners.lora.layer import Linear as Plain

    class AdaptedLinear(Plain):
        def forward(self, x: Tensor, *more: Any, **named: Any) -> Tensor:
            if not (torch.is_grad_enabled() and self._is_simple(x)):
                whole: Tensor = super().forward(x, *more, **named)
                return whole
            (name,) = self.active_adapters
            down, up = self.lora_A[name].weight, self.lora_B[name].weight
            gradual: Tensor = _Adapted.apply(x, self.base_layer.weight, down, up, self.scaling[name])
            return gradual

        def _is_simple(self, rows: Tensor) -> bool:
            """One adapter, nothing beside its two matrices, on a layer that oneDNN reads."""
            names, base = self.active_adapters, cast(Linear, self.base_layer)
            return (
                len(names) == 1
                and not (self.disable_adapters or self.merged or self.lora_variant)
                and not any(self.lora_bias.values())
                and isinstance(self.lora_dropout[names[0]], nn.Identity)
                and self.lora_A[names[0]].weight.dtype is torch.float32
                and base._is_read(rows)
                and _has_onednn()
            )

    return AdaptedLinear


@cache
def _has_onednn() -> bool:
    """Whether this PyTorch and this processor have it, and it computes what is expected."""
    if torch.backends.cpu.get_cpu_capability() != "AVX512" or not torch.backends.mkldnn.is_available():
        return False
    with torch.inference_mode():
        rows, weight = (torch.linspace(-1, 1, count * 48).reshape(count, 48).sin() for count in (17, 32))
        try:
            return torch.allclose(_by_onednn(rows, weight), functional.linear(rows, weight), atol=_CLOSE)
        except Exception:  # the operator is not a public one: another version of PyTorch may lack it
            return False


def _by_onednn(rows: Tensor, weight: Tensor) -> Tensor:
    return torch.ops.mkldnn._linear_pointwise(rows, weight, None, "none", [], "")
