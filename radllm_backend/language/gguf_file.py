"""A base model's GGUF file, as llama.cpp uses it, turned into the folder that everybody reads: safetensors and JSON.

Weights of few bits are expanded to fp32 once, so that reading maps them into memory as they are.
"""

from __future__ import annotations

import json
import re
from collections.abc import Iterator
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np

from radllm_backend.errors import RadllmError
from radllm_backend.features.arrays import Float32Array

if TYPE_CHECKING:
    from gguf import GGUFReader
    from tokenizers import Tokenizer

CONVERTERS = ("gguf", "safetensors", "tokenizers")
"""The packages whose versions decide what becomes of a GGUF file."""

_NAMES = {
    "token_embd.weight": "model.embed_tokens.weight",
    "output_norm.weight": "model.norm.weight",
}
_PARTS = {
    "attn_norm": "input_layernorm",
    "attn_q": "self_attn.q_proj",
    "attn_k": "self_attn.k_proj",
    "attn_v": "self_attn.v_proj",
    "attn_output": "self_attn.o_proj",
    "ffn_norm": "post_attention_layernorm",
    "ffn_gate": "mlp.gate_proj",
    "ffn_up": "mlp.up_proj",
    "ffn_down": "mlp.down_proj",
}
_BLOCK = re.compile(r"blk\.(\d+)\.(\w+)\.weight")
_NOT_READ = {"output.weight", "rope_freqs.weight"}
"""The head that writes text, and frequencies that follow from the settings."""
_CONTROL = 3
"""The kind of a token that stands for no text, in a GGUF file."""


def convert_gguf(path: Path, folder: Path) -> None:
    """Write ``model.safetensors`` in fp32, ``config.json``, ``tokenizer.json`` and ``tokenizer_config.json``.

    The tensors have the names and the order of rows that transformers gives them.

    Raises:
        RadllmError: the file cannot be read as a LLaMA model with a byte-level BPE tokenizer, or the folder cannot be
            written.
    """
    from gguf import GGUFReader
    from safetensors.numpy import save_file

    try:
        source = _Source(GGUFReader(path))
        (folder / "config.json").write_text(json.dumps(source.config(), indent=1) + "\n", encoding="utf-8")
        (folder / "tokenizer.json").write_text(_as_text(source.tokenizer()), encoding="utf-8")
        settings = json.dumps(source.tokenizer_config(), indent=1) + "\n"
        (folder / "tokenizer_config.json").write_text(settings, encoding="utf-8")
        save_file(dict(source.tensors()), folder / "model.safetensors", metadata={"format": "pt"})
    except RadllmError:
        raise
    except Exception as error:  # the libraries raise nothing more precise
        raise RadllmError(
            f"{path.name} could not be converted ({type(error).__name__}: {str(error)[:120]}): see `radllm doctor`."
        ) from error


class _Source:
    """A GGUF file with the names of its settings."""

    def __init__(self, reader: GGUFReader) -> None:
        self._reader = reader
        architecture = self._setting("general.architecture")
        if architecture != "llama":
            raise RadllmError(f"The GGUF file holds a model of type {architecture!r}: only 'llama' can be used.")
        self._heads = int(self._setting("llama.attention.head_count"))
        self._key_heads = int(self._setting("llama.attention.head_count_kv", self._heads))

    def _setting(self, name: str, usual: Any = None) -> Any:
        field = self._reader.get_field(name)
        if field is None and usual is None:
            raise RadllmError(f"The GGUF file does not say {name}: get it anew.")
        return usual if field is None else field.contents()

    def config(self) -> dict[str, Any]:
        """What transformers writes into ``config.json``, as far as it matters."""
        width = int(self._setting("llama.embedding_length"))
        return {
            "architectures": ["LlamaForCausalLM"],
            "attention_bias": False,
            "bos_token_id": self._token("bos"),
            "dtype": "float32",
            "eos_token_id": self._token("eos"),
            "head_dim": int(self._setting("llama.rope.dimension_count", width // self._heads)),
            "hidden_act": "silu",
            "hidden_size": width,
            "intermediate_size": int(self._setting("llama.feed_forward_length")),
            "max_position_embeddings": int(self._setting("llama.context_length")),
            "mlp_bias": False,
            "model_type": "llama",
            "num_attention_heads": self._heads,
            "num_hidden_layers": int(self._setting("llama.block_count")),
            "num_key_value_heads": self._key_heads,
            "pad_token_id": self._token("padding"),
            "rms_norm_eps": float(self._setting("llama.attention.layer_norm_rms_epsilon")),
            "rope_parameters": {
                "rope_theta": float(self._setting("llama.rope.freq_base", 10000.0)),
                "rope_type": "default",
            },
            "tie_word_embeddings": True,
            "vocab_size": len(self._setting("tokenizer.ggml.tokens")),
        }

    def _token(self, kind: str) -> int | None:
        field = self._reader.get_field(f"tokenizer.ggml.{kind}_token_id")
        return None if field is None else int(field.contents())

    def tensors(self) -> Iterator[tuple[str, Float32Array]]:
        """Each tensor that is read, in fp32."""
        from gguf import dequantize

        for tensor in self._reader.tensors:
            if tensor.name in _NOT_READ:
                continue
            weight = np.ascontiguousarray(dequantize(tensor.data, tensor.tensor_type), dtype=np.float32)
            heads = {"attn_q": self._heads, "attn_k": self._key_heads}.get(tensor.name.split(".")[-2], 0)
            yield _name(tensor.name), _uninterleaved(weight, heads) if heads else weight

    def tokenizer(self) -> Tokenizer:
        """As transformers makes it of the same file."""
        from tokenizers import AddedToken, Tokenizer, decoders, models, pre_tokenizers

        kind = self._setting("tokenizer.ggml.model")
        if kind != "gpt2" or self._setting("tokenizer.ggml.add_bos_token", False):
            raise RadllmError(f"The GGUF file's tokenizer ({kind!r}) is no plain byte-level BPE: use another model.")
        tokens = self._setting("tokenizer.ggml.tokens")
        merges = [tuple(pair.split(" ")) for pair in self._setting("tokenizer.ggml.merges")]
        tokenizer = Tokenizer(models.BPE({token: number for number, token in enumerate(tokens)}, merges))
        tokenizer.pre_tokenizer = pre_tokenizers.ByteLevel(add_prefix_space=False)
        tokenizer.decoder = decoders.ByteLevel()
        kinds = self._setting("tokenizer.ggml.token_type")
        special = [token for token, one in zip(tokens, kinds, strict=True) if one == _CONTROL]
        tokenizer.add_special_tokens([AddedToken(token, normalized=False, special=True) for token in special])
        return tokenizer

    def tokenizer_config(self) -> dict[str, Any]:
        """For other programs that read an exported model; here nobody reads it."""
        tokens = self._setting("tokenizer.ggml.tokens")
        found = {"bos": self._token("bos"), "eos": self._token("eos"), "unk": self._token("unknown")}
        found["pad"] = self._token("padding")
        named = {f"{name}_token": tokens[number] for name, number in found.items() if number is not None}
        return {"tokenizer_class": "PreTrainedTokenizerFast", **named}


def _as_text(tokenizer: Tokenizer) -> str:
    """Its ``tokenizer.json``, with each merge as one text and not as a list of two.

    Both forms are the library's own. It reads this one in three quarters of the time, and while it reads, no other
    thread of Python goes on: Slicer's windows stand still.
    """
    content = json.loads(tokenizer.to_str())
    content["model"]["merges"] = [" ".join(pair) for pair in content["model"]["merges"]]
    return json.dumps(content, ensure_ascii=False, separators=(",", ":"))


def _name(gguf_name: str) -> str:
    """The name that transformers gives a tensor."""
    block = _BLOCK.fullmatch(gguf_name)
    if block and block[2] in _PARTS:
        return f"model.layers.{block[1]}.{_PARTS[block[2]]}.weight"
    if gguf_name not in _NAMES:
        raise RadllmError(f"The GGUF file holds {gguf_name[:60]}, which no plain LLaMA model has: use another model.")
    return _NAMES[gguf_name]


def _uninterleaved(weight: Float32Array, heads: int) -> Float32Array:
    """llama.cpp keeps the two halves of each head interleaved, row by row."""
    rows, columns = weight.shape
    return np.ascontiguousarray(weight.reshape(heads, rows // heads // 2, 2, columns).swapaxes(1, 2)).reshape(
        rows, columns
    )
