"""The processes that share one training, as ``accelerate launch`` or ``torchrun`` start them; usually there is one.

Every process runs the same program on the same table and keeps its work in the same folder. Each reads its part of
every batch, and only the main one tells, draws and writes what is kept.
"""

from __future__ import annotations

import contextlib
import os
import warnings
from collections.abc import Iterator
from datetime import timedelta
from typing import TYPE_CHECKING, Any

from radllm_backend.errors import RadllmError

if TYPE_CHECKING:
    import numpy as np
    import torch
    from numpy.typing import NDArray
    from torch import Tensor

_PATIENCE = timedelta(hours=1)
"""How long one process waits for another: they do the same work, but not at the same speed."""


def count() -> int:
    """How many processes share the work."""
    return int(os.environ.get("WORLD_SIZE", "1"))


def index() -> int:
    """Which of them this is, from 0."""
    return int(os.environ.get("RANK", "0")) if count() > 1 else 0


def is_main() -> bool:
    return index() == 0


def sharded() -> bool:
    """Whether each process holds only its part of the weights (FSDP), rather than all of them."""
    return count() > 1 and os.environ.get("ACCELERATE_USE_FSDP", "").lower() == "true"


def device() -> torch.device:
    """This process's CUDA GPU where there is one, otherwise the CPU."""
    import torch

    if count() > 1:
        chosen: torch.device = _state().device
        return chosen
    return torch.device("cuda" if torch.cuda.is_available() else "cpu")


def wait() -> None:
    """Go on when all processes are here."""
    if count() > 1:
        _state().wait_for_everyone()


def leave() -> bool:
    """Part from the other processes, at the end; true in the main one, which goes on alone."""
    if count() > 1:
        _state().destroy_process_group()
    return is_main()


def summed(values: NDArray[np.float64]) -> NDArray[np.float64]:
    """The sum over all processes, the same to the last bit in each."""
    if count() == 1:
        return values
    import torch

    sums = torch.tensor(values, dtype=torch.float64, device=device())
    torch.distributed.all_reduce(sums)
    return sums.cpu().numpy()


def share(rows: NDArray[np.int_]) -> tuple[NDArray[np.int_], NDArray[np.bool_]]:
    """This process's part of a batch, and which of its rows count.

    It is as long in every process, for they wait for each other at each step: filled up with rows that do not count.
    """
    import numpy as np

    length = -(-len(rows) // count())
    mine = slice(index() * length, (index() + 1) * length)
    return np.resize(rows, length * count())[mine], (np.arange(length * count()) < len(rows))[mine]


def joined(classifier: Any) -> Any:
    """The module that training's forward passes go through, so that the processes' gradients become one mean.

    Its layers are in `classifier.layers`; a classifier whose weights are sharded is changed in place.
    """
    if count() == 1:
        return classifier
    if sharded():
        return _shard(classifier)
    from torch.nn.parallel import DistributedDataParallel

    here = device()
    return DistributedDataParallel(classifier, device_ids=[here.index] if here.type == "cuda" else None)


def _shard(classifier: Any) -> Any:
    """Layer by layer, as PyTorch's FSDP2 does; `score` gathers the weights as a forward pass does."""
    from torch.distributed.device_mesh import init_device_mesh
    from torch.distributed.fsdp import fully_shard, register_fsdp_forward_method

    mesh = init_device_mesh(device().type, (count(),))
    for layer in classifier.layers:
        fully_shard(layer, mesh=mesh)
    # Given up after a pass, so that what is outside the layers is always found in parts.
    fully_shard(classifier, mesh=mesh, reshard_after_forward=True)
    register_fsdp_forward_method(classifier, "score")
    # Nobody changes the logits in place, which is what PyTorch warns of at every step.
    warnings.filterwarnings("ignore", "FSDP2-wrapped module .* returned a view tensor")
    return classifier


@contextlib.contextmanager
def gathering(model: Any, gather: bool) -> Iterator[None]:
    """Forward and backward inside either end with the mean of all processes' gradients, or add to this one's own."""
    if count() == 1 or gather:
        yield
    elif sharded():
        model.set_requires_gradient_sync(False)
        yield
        model.set_requires_gradient_sync(True)
    else:
        with model.no_sync():
            yield


def whole(tensor: Tensor) -> Tensor:
    """A tensor of which each process may hold a part. All must ask, in the same order."""
    gather = getattr(tensor, "full_tensor", None)
    return gather() if gather else tensor


def placed_like(tensor: Tensor, other: Tensor) -> Tensor:
    """A whole tensor on the device of another, and in parts where that one is in parts."""
    moved = tensor.to(other.device)
    if not hasattr(other, "full_tensor"):
        return moved
    from torch.distributed.tensor import distribute_tensor

    sharded_like: Any = other
    return distribute_tensor(moved, sharded_like.device_mesh, sharded_like.placements, src_data_rank=None)


def _state() -> Any:
    """accelerate's record of this process; the first call meets the other processes."""
    import torch

    try:
        from accelerate import PartialState
    except ImportError as error:
        raise RadllmError("Several processes share this work, and that needs: pip install accelerate.") from error
    # Otherwise transformers would leave the weights of all but the first process empty.
    os.environ["FSDP_CPU_RAM_EFFICIENT_LOADING"] = "false"
    on_cpu = os.environ.get("ACCELERATE_USE_CPU", "").lower() == "true" or not torch.cuda.is_available()
    return PartialState(cpu=on_cpu, timeout=_PATIENCE)
