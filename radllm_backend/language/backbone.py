"""A base model as PyTorch has it, for training and for GPUs: loaded by transformers from tensors that are read here."""

from __future__ import annotations

import contextlib
from collections.abc import Iterator
from dataclasses import replace
from importlib.util import find_spec
from typing import TYPE_CHECKING, Any, cast

from radllm_backend.errors import RadllmError
from radllm_backend.files import read_json
from radllm_backend.language import distributed
from radllm_backend.language.base_models import BaseModelFolder, stay_offline
from radllm_backend.language.fetching import first_line
from radllm_backend.language.weights import weight_files

if TYPE_CHECKING:
    from transformers import LlamaModel

DTYPES = ("float32", "bfloat16", "float16")


def in_four_bits(base: BaseModelFolder) -> BaseModelFolder:
    """The base model to be held in 4 bits a weight (QLoRA: Dettmers et al., NeurIPS 2023), for training on one GPU.

    Raises:
        RadllmError: there is no CUDA GPU, bitsandbytes is not installed, or the weights are sharded.
    """
    import torch

    if not torch.cuda.is_available():
        raise RadllmError("--four-bit needs a CUDA GPU, and this computer has none: leave it out.")
    if find_spec("bitsandbytes") is None:
        raise RadllmError("--four-bit needs bitsandbytes, which is not installed: pip install bitsandbytes.")
    if distributed.sharded():
        raise RadllmError("--four-bit keeps the whole model on each GPU: leave it out, or leave --use_fsdp out.")
    return replace(base, four_bit=True)


def _rounding(base: BaseModelFolder, dtype: str) -> dict[str, Any]:
    """What transformers is told of the number format."""
    import torch

    if not base.four_bit:
        return {"dtype": getattr(torch, dtype)}
    from transformers import BitsAndBytesConfig

    config = BitsAndBytesConfig(
        load_in_4bit=True, bnb_4bit_quant_type="nf4", bnb_4bit_use_double_quant=True, bnb_4bit_compute_dtype="bfloat16"
    )
    return {"dtype": torch.bfloat16, "quantization_config": config, "device_map": {"": distributed.device()}}


def load_backbone(base: BaseModelFolder, *, dtype: str = "float32") -> LlamaModel:
    """The transformer without its language-model head, in evaluation mode, on the CPU (in 4 bits: on the GPU).

    The tensors are read here and handed over, so that transformers has no folder or hub to look for anything else in:
    adapters, pickles, kernels and code stay out of reach.

    Raises:
        RadllmError: the weights and the configuration do not belong together, or dtype is not one of `DTYPES`.
    """
    if dtype not in DTYPES:
        raise RadllmError(f"The number format {dtype!r} is unknown: use one of {', '.join(DTYPES)}.")
    stay_offline()
    from transformers import LlamaConfig, LlamaModel

    try:
        config = LlamaConfig.from_dict(read_json(base.folder / "config.json"))
        with quiet_transformers():
            loaded: Any = LlamaModel.from_pretrained(
                None,
                config=config,
                state_dict=_tensors_of(base),
                **_rounding(base, dtype),
                attn_implementation="sdpa",
                output_loading_info=True,
            )
    except RadllmError:
        raise
    except Exception as error:
        reason = first_line(error)
        raise RadllmError(f"{base.folder} could not be loaded as a LLaMA model ({reason}): fetch it again.") from error
    model, report = loaded
    # transformers fills what is missing with random numbers and goes on.
    if report["missing_keys"]:
        name = min(report["missing_keys"])
        raise RadllmError(f"The weights in {base.folder} lack {name} and others: fetch the model again, complete.")
    return cast("LlamaModel", model.eval())


def _tensors_of(base: BaseModelFolder) -> dict[str, Any]:
    """The weights in a base model's folder by name, as the files have them."""
    from safetensors import safe_open

    tensors = {}
    for path in weight_files(base.folder):
        with safe_open(path, framework="pt") as file:  # mapped into memory: what nobody uses is never read
            tensors.update({name: file.get_tensor(name) for name in sorted(file.keys())})
    return tensors


@contextlib.contextmanager
def quiet_transformers() -> Iterator[None]:
    """No progress bars and no warnings from transformers; its settings are put back afterwards."""
    from transformers.utils import logging

    verbosity, bars = logging.get_verbosity(), logging.is_progress_bar_enabled()
    logging.set_verbosity_error()
    logging.disable_progress_bar()
    try:
        yield
    finally:
        logging.set_verbosity(verbosity)
        if bars:
            logging.enable_progress_bar()
