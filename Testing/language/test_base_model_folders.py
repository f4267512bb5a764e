"""A user's own model folder is used where it lies, refused when it is no plain LLaMA model, and loads exactly."""

from __future__ import annotations

import hashlib
import json
from collections.abc import Callable
from pathlib import Path

import pytest

from radllm_backend.errors import RadllmError
from radllm_backend.language import base_model_cache as model_cache
from radllm_backend.language import base_models
from radllm_backend.language.backbone import load_backbone
from Testing.support.base_models import PROMPT, drop, edit, files_below, finish, flip_last_byte, no_pip, python, write

# ----------------------------------------------------------------------------------------------------- the user's own


def test_a_folder_is_used_where_it_lies(tiny_base: Path, fresh_cache: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    base = base_models.pull(str(tiny_base))
    assert base == base_models.locate(tiny_base) == base_models.locate(base.name) == base_models.verify(tiny_base)
    assert (base.folder, base.origin) == (tiny_base, "folder")
    assert {Path(name).parent.name for name in files_below(fresh_cache)} == {"folders"}
    names = ["config.json", "model.safetensors", "tokenizer.json", "tokenizer_config.json"]
    lines = [f"{name} {hashlib.sha256((tiny_base / name).read_bytes()).hexdigest()}\n" for name in names]
    assert base.sha256 == hashlib.sha256("".join(lines).encode()).hexdigest()
    monkeypatch.chdir(tiny_base.parent)
    assert base_models.locate(tiny_base.name) == base

    monkeypatch.setattr(model_cache, "sha256_of", no_pip)  # hashed once, then remembered
    assert base_models.locate(tiny_base) == base


def test_identity_follows_the_content_not_the_place(tiny_copy: Path, tiny_base: Path) -> None:
    original = base_models.locate(tiny_base)
    (tiny_copy / "README.md").write_text("no part of the model")
    assert base_models.locate(tiny_copy).sha256 == original.sha256
    for name in ("config.json", "tokenizer.json", "tokenizer_config.json"):
        before = base_models.locate(tiny_copy).sha256
        with (tiny_copy / name).open("a") as file:
            file.write("\n")
        assert base_models.locate(tiny_copy).sha256 != before
    flip_last_byte(tiny_copy / "model.safetensors")
    assert base_models.verify(tiny_copy).sha256 not in {before, original.sha256}


def test_verify_finds_a_byte_that_changed_behind_our_back(tiny_copy: Path) -> None:
    base_models.locate(tiny_copy)
    flip_last_byte(tiny_copy / "model.safetensors", keep_time=True)
    base_models.locate(tiny_copy)
    with pytest.raises(RadllmError, match=r"^model.safetensors of base model .*copy is not what it was"):
        base_models.verify(tiny_copy)


@pytest.mark.parametrize("memory", ["{", '{"folder": "x", "files": {"config.json": {"size": 1}}}'])
def test_a_spoilt_or_unwritable_memory_costs_time_only(
    tiny_base: Path, fresh_cache: Path, monkeypatch: pytest.MonkeyPatch, memory: str
) -> None:
    base = base_models.locate(tiny_base)
    (file,) = (fresh_cache / "folders").iterdir()
    file.write_text(memory)
    assert base_models.locate(tiny_base) == base
    assert json.loads(file.read_text())["folder"] == str(tiny_base)
    monkeypatch.setenv("RADLLM_CACHE", str(file))
    assert base_models.locate(tiny_base) == base


def test_weights_in_several_files_are_one_model(tiny_copy: Path, tiny_base: Path) -> None:
    import torch
    from transformers import LlamaForCausalLM

    (tiny_copy / "model.safetensors").unlink()
    LlamaForCausalLM.from_pretrained(tiny_base, local_files_only=True).save_pretrained(tiny_copy, max_shard_size="60KB")
    assert len(list(tiny_copy.glob("*.safetensors"))) > 1
    weights = load_backbone(base_models.locate(tiny_copy)).state_dict()
    for name, expected in load_backbone(base_models.locate(tiny_base)).state_dict().items():
        assert torch.equal(weights[name], expected), name
    next(tiny_copy.glob("*.safetensors")).unlink()
    with pytest.raises(RadllmError, match="which is missing"):
        base_models.locate(tiny_copy)


# ------------------------------------------------------------------------------------------------------------ refusals


REFUSALS: list[tuple[Callable[[Path], object], str]] = [
    (edit("config.json", model_type="mistral"), r"holds a model of type 'mistral': only 'llama'"),
    (edit("config.json", model_type=None), r"holds a model of type None: only 'llama'"),
    (edit("config.json", auto_map={"AutoModel": "m.M"}), r"config.json asks to run code of its own \(auto_map\)"),
    (edit("tokenizer_config.json", auto_map={}), r"tokenizer_config.json asks to run code of its own"),
    (edit("config.json", quantization_config={"bits": 4}), "holds quantised weights"),
    (write("modeling_llama.py"), r"holds code \(modeling_llama.py\)"),
    (write("pytorch_model.bin"), "holds pytorch_model.bin, a kind of file that can run code"),
    (write("weights.pt"), "holds weights.pt"),
    (write("weights.pkl"), "holds weights.pkl"),
    (write("weights.ckpt"), "holds weights.ckpt"),
    (write("adapter_config.json", b'{"base_model_name_or_path": "other/model"}'), "holds an adapter"),
    (drop("config.json"), "has no config.json"),
    (drop("tokenizer.json"), "has no tokenizer.json"),
    (drop("model.safetensors"), "has no model.safetensors"),
    (write("config.json", b"{"), "config.json is not valid JSON"),
    (write("config.json", b"[]"), "config.json holds no JSON object"),
    (write("tokenizer_config.json", b"\xff"), "tokenizer_config.json is not valid JSON"),
    (write("model.safetensors", b"PK\x03\x04" + bytes(99)), "model.safetensors is not a sound safetensors file"),
    (write("model.safetensors", (9**9).to_bytes(8, "little")), "its header is longer than the file"),
    (write("model.safetensors.index.json", b'{"weight_map": {"a": "../b.safetensors"}}'), "only .safetensors files"),
]


@pytest.mark.parametrize(("spoil", "reason"), REFUSALS, ids=[reason for _, reason in REFUSALS])
def test_what_is_no_plain_llama_model_is_refused(tiny_copy: Path, spoil: Callable[[Path], object], reason: str) -> None:
    base_models.locate(tiny_copy)
    spoil(tiny_copy)
    for call in (base_models.locate, base_models.verify, base_models.pull):
        with pytest.raises(RadllmError, match=reason) as error:
            call(str(tiny_copy))
        assert str(tiny_copy) in str(error.value)
        assert str(error.value).endswith(".")
        assert "\n" not in str(error.value)


def test_weights_that_do_not_fit_are_refused_and_never_filled_with_random_numbers(tiny_copy: Path) -> None:
    from safetensors.numpy import load_file, save_file

    weights = load_file(tiny_copy / "model.safetensors")
    lost = "model.layers.1.mlp.up_proj.weight"
    save_file({name: value for name, value in weights.items() if name != lost}, tiny_copy / "model.safetensors")
    with pytest.raises(RadllmError, match=r"copy lack layers.1.mlp.up_proj.weight and others"):
        load_backbone(base_models.locate(tiny_copy))
    save_file({**weights, lost: weights[lost][:-1]}, tiny_copy / "model.safetensors")
    with pytest.raises(RadllmError, match=r"copy could not be loaded as a LLaMA model \("):
        load_backbone(base_models.locate(tiny_copy))


@pytest.mark.parametrize("change", [{"hidden_size": "many"}, {"num_hidden_layers": 3}, {"hidden_act": "nonsense"}])
def test_a_configuration_that_makes_no_sense_is_refused(tiny_copy: Path, change: dict[str, object]) -> None:
    edit("config.json", **change)(tiny_copy)
    with pytest.raises(RadllmError, match="copy"):
        load_backbone(base_models.locate(tiny_copy))


def test_a_malformed_tokenizer_or_number_format_is_refused(tiny_copy: Path) -> None:
    base = base_models.locate(tiny_copy)
    with pytest.raises(RadllmError, match=r"'int8' is unknown: use one of float32, bfloat16, float16"):
        load_backbone(base, dtype="int8")
    (tiny_copy / "tokenizer.json").write_text('{"model": {}}')
    with pytest.raises(RadllmError, match=r"tokenizer.json in .*copy is malformed"):
        base_models.load_tokenizer(base)


# ------------------------------------------------------------------------------------------------------------- loading


def test_the_backbone_is_that_of_transformers_in_any_number_format(tiny_base: Path) -> None:
    import torch
    from transformers import LlamaForCausalLM

    base = base_models.locate(tiny_base)
    ids = torch.tensor([base_models.load_tokenizer(base).encode(PROMPT).ids])
    reference = LlamaForCausalLM.from_pretrained(tiny_base, local_files_only=True).model
    with torch.no_grad():
        expected = reference(input_ids=ids).last_hidden_state
        assert torch.equal(load_backbone(base)(input_ids=ids).last_hidden_state, expected)
        half = load_backbone(base, dtype="bfloat16")(input_ids=ids).last_hidden_state
    assert half.dtype == torch.bfloat16
    assert not torch.equal(half.float(), expected)
    torch.testing.assert_close(half.float(), expected, rtol=0.1, atol=0.1)


def test_a_language_model_head_is_not_loaded(tiny_copy: Path) -> None:
    from safetensors.numpy import load_file, save_file

    weights = load_file(tiny_copy / "model.safetensors")
    untied = {**weights, "lm_head.weight": weights["model.embed_tokens.weight"] * 2}
    save_file(untied, tiny_copy / "model.safetensors")
    edit("config.json", tie_word_embeddings=False)(tiny_copy)
    names = load_backbone(base_models.locate(tiny_copy)).state_dict()
    assert not [name for name in names if "lm_head" in name]


def test_a_tokenizer_never_cuts_or_pads(tiny_copy: Path) -> None:
    from tokenizers import Tokenizer

    tokenizer = Tokenizer.from_file(str(tiny_copy / "tokenizer.json"))
    tokenizer.enable_truncation(5)
    tokenizer.enable_padding(length=4000)
    tokenizer.save(str(tiny_copy / "tokenizer.json"))
    loaded = base_models.load_tokenizer(base_models.locate(tiny_copy))
    assert 1000 < len(loaded.encode(PROMPT * 50).ids) < 4000
    assert loaded.decode(loaded.encode(PROMPT).ids) == PROMPT


@pytest.mark.usefixtures("fresh_cache")
def test_loading_is_silent_and_never_goes_online(tiny_base: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    code = """
        import os, socket, sys
        def online(*_): raise AssertionError("went online")
        socket.socket.connect = socket.getaddrinfo = online
        import huggingface_hub.constants
        from radllm_backend.language import backbone, base_models
        base = base_models.locate(sys.argv[1])
        backbone.load_backbone(base), base_models.load_tokenizer(base)
        print(os.environ["HF_HUB_OFFLINE"], os.environ["TRANSFORMERS_OFFLINE"], huggingface_hub.is_offline_mode())
    """
    monkeypatch.delenv("HF_HUB_OFFLINE", raising=False)
    monkeypatch.delenv("TRANSFORMERS_OFFLINE", raising=False)
    assert finish(python(code, str(tiny_base))) == "1 1 True\n"


def test_importing_needs_no_torch() -> None:
    code = """
        import sys, radllm_backend.language.base_models
        print([name for name in ("torch", "transformers", "huggingface_hub", "tokenizers") if name in sys.modules])
    """
    assert finish(python(code)) == "[]\n"
