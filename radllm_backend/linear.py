"""Linear layers on a CPU by the faster of the two libraries that PyTorch has for them.

PyTorch multiplies matrices in fp32 by MKL, which computes with half of the width that AMD's processors with AVX-512
have. oneDNN, by which it multiplies those in bf16, uses all of it, and is no slower on Intel's.
"""

from __future__ import annotations

from functools import cache
from typing import Any

import torch
from torch import Tensor, nn
from torch.nn import functional

_CLOSE = 1e-4


class Linear(nn.Linear):
    """A linear layer without a bias. Where it is trained, it is PyTorch's own."""

    def forward(self, rows: Tensor) -> Tensor:
        if self._is_read(rows) and _has_onednn():
            return _by_onednn(rows, self.weight)
        return functional.linear(rows, self.weight)

    def _is_read(self, rows: Tensor) -> bool:
        """In fp32 on a CPU, without gradients."""
        return (
            rows.dtype is self.weight.dtype is torch.float32
            and rows.is_cpu
            and not torch.is_autocast_enabled("cpu")
            and not (torch.is_grad_enabled() and (rows.requires_grad or self.weight.requires_grad))
        )


def quicken(model: Any) -> None:
    """Let the plain linear layers of a model without a bias be `Linear`; their weights stay where they are."""
    for module in model.modules():
        if type(module) is nn.Linear and module.bias is None:
            module.__class__ = Linear


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
