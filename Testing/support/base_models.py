"""What the tests of base models share: wheels and GGUF files made here, processes of their own, spoilt files."""

from __future__ import annotations

import base64
import hashlib
import json
import os
import subprocess
import sys
import textwrap
import zipfile
from collections.abc import Callable
from pathlib import Path

ROOT = Path(__file__).resolve().parents[2]
MEMBER = "tiny_llama/tiny.gguf"
KEPT = {"base.json", "config.json", "model.safetensors", "tokenizer.json", "tokenizer_config.json"}
PROMPT = "The 'Sphericity' feature is measured at -0.985. naïve\n"


def write_gguf(folder: Path, path: Path) -> None:
    """Write a LLaMA folder as llama.cpp does: 32-bit weights, the rows of queries and keys interleaved for its RoPE."""
    import gguf
    from safetensors.numpy import load_file

    config = json.loads((folder / "config.json").read_text())
    bpe = json.loads((folder / "tokenizer.json").read_text())["model"]
    writer = gguf.GGUFWriter(path, "llama")
    writer.add_context_length(config["max_position_embeddings"])
    writer.add_embedding_length(config["hidden_size"])
    writer.add_block_count(config["num_hidden_layers"])
    writer.add_feed_forward_length(config["intermediate_size"])
    writer.add_head_count(config["num_attention_heads"])
    writer.add_head_count_kv(config["num_key_value_heads"])
    writer.add_layer_norm_rms_eps(config["rms_norm_eps"])
    writer.add_rope_dimension_count(config["head_dim"])
    writer.add_rope_freq_base(config["rope_parameters"]["rope_theta"])
    writer.add_vocab_size(config["vocab_size"])
    writer.add_tokenizer_model("gpt2")
    writer.add_tokenizer_pre("smollm")
    tokens = sorted(bpe["vocab"], key=bpe["vocab"].get)
    writer.add_token_list(tokens)
    writer.add_token_types([3] * 3 + [1] * (len(tokens) - 3))
    writer.add_token_merges([" ".join(pair) for pair in bpe["merges"]])
    writer.add_bos_token_id(1)
    writer.add_eos_token_id(2)
    names = gguf.get_tensor_name_map(gguf.MODEL_ARCH.LLAMA, config["num_hidden_layers"])
    heads = {"q_proj": config["num_attention_heads"], "k_proj": config["num_key_value_heads"]}
    for name, weights in load_file(folder / "model.safetensors").items():
        count = heads.get(name.split(".")[-2])
        if count is not None:
            rows, columns = weights.shape
            weights = weights.reshape(count, 2, rows // count // 2, columns).swapaxes(1, 2).reshape(rows, columns)
        writer.add_tensor(names.get_name(name, try_suffixes=(".weight",)) or name, weights)
    writer.write_header_to_file()
    writer.write_kv_data_to_file()
    writer.write_tensors_to_file()
    writer.close()


def write_wheel(folder: Path, member: Path) -> Path:
    """A wheel that pip accepts, with one file in it beside its metadata."""
    info = "tiny_llama-0.1.dist-info"
    contents = {
        MEMBER: member.read_bytes(),
        f"{info}/METADATA": b"Metadata-Version: 2.1\nName: tiny-llama\nVersion: 0.1\n",
        f"{info}/WHEEL": b"Wheel-Version: 1.0\nGenerator: test\nRoot-Is-Purelib: true\nTag: py3-none-any\n",
    }
    digests = {name: base64.urlsafe_b64encode(hashlib.sha256(data).digest()) for name, data in contents.items()}
    lines = [f"{name},sha256={digest.decode().rstrip('=')},{len(contents[name])}" for name, digest in digests.items()]
    contents[f"{info}/RECORD"] = "\n".join([*lines, f"{info}/RECORD,,", ""]).encode()
    wheel = folder / "tiny_llama-0.1-py3-none-any.whl"
    with zipfile.ZipFile(wheel, "w", zipfile.ZIP_DEFLATED) as archive:
        for name, data in contents.items():
            archive.writestr(name, data)
    return wheel


def python(code: str, *arguments: str, **environment: str) -> subprocess.Popen[str]:
    """Run code in a process of its own, with this test's environment."""
    return subprocess.Popen(
        [sys.executable, "-c", textwrap.dedent(code), *arguments],
        env={**os.environ, "PYTHONPATH": str(ROOT), **environment},
        stdin=subprocess.PIPE,
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
    )


def wait_for(process: subprocess.Popen[str], start: str) -> None:
    """Read what a process prints until a line that starts so."""
    assert process.stdout is not None
    while not (line := process.stdout.readline()).startswith(start):
        assert line, process.communicate()


def finish(process: subprocess.Popen[str]) -> str:
    """Let a process go on and end; return what it still prints. It must end well and be silent on stderr."""
    out, err = process.communicate("\n", timeout=300)
    assert (process.returncode, err) == (0, "")
    return out


def files_below(folder: Path) -> set[str]:
    """Every file in a cache but the empty ones that serve as locks."""
    paths = (path for path in folder.rglob("*") if path.is_file() and path.suffix != ".lock")
    return {str(path.relative_to(folder)) for path in paths}


def no_pip(*_: object, **__: object) -> None:
    raise AssertionError("nothing should be fetched")


def flip_last_byte(path: Path, *, keep_time: bool = False) -> None:
    status, content = path.stat(), bytearray(path.read_bytes())
    content[-1] ^= 1
    path.write_bytes(content)
    if keep_time:
        os.utime(path, ns=(status.st_atime_ns, status.st_mtime_ns))


def edit(name: str, **changes: object) -> Callable[[Path], object]:
    def apply(folder: Path) -> None:
        content = json.loads((folder / name).read_text())
        (folder / name).write_text(json.dumps({**content, **changes}))

    return apply


def write(name: str, content: bytes = b"") -> Callable[[Path], object]:
    return lambda folder: (folder / name).write_bytes(content)


def drop(name: str) -> Callable[[Path], object]:
    return lambda folder: (folder / name).unlink()
