"""The models of a server: no more in memory than may be, verified whenever they are loaded, refused where they are not
what they should be."""

from __future__ import annotations

import hashlib
import json
import pickle
import shutil
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

torch = pytest.importorskip("torch")
pytest.importorskip("uvicorn")
from radllm_backend.errors import RadllmError
from radllm_backend.models.bundle import ADAPTER, CARD, Bundle, read_bundle
from radllm_backend.models.model import Model
from radllm_backend.server.models import ModelStore, ModelUnavailableError, sample_lesion, weights_in_memory
from radllm_backend.server.queue import Question
from Testing.support.command_line import radllm
from Testing.support.servers import lesions


def renamed(model: Path, folder: Path, name: str) -> Bundle:
    """The same model under another name."""
    shutil.copytree(model, folder / name)
    card = json.loads((folder / name / CARD).read_text())
    (folder / name / CARD).write_text(json.dumps({**card, "name": name}))
    return read_bundle(folder / name)


@pytest.fixture
def three(tiny_model: Path, tmp_path: Path, fresh_cache: Path) -> list[Bundle]:
    return [renamed(tiny_model, tmp_path, name) for name in ("a", "b", "c")]


def test_no_more_models_are_in_memory_than_may_be(three, tiny_base, tiny_model):
    built: list[str] = []

    def build(bundle: Bundle) -> Model:
        built.append(bundle.card.name)
        return Model(bundle, tiny_base)

    models = ModelStore(three, build, lambda bundle: 100, memory=250)
    models.warm_up()
    assert models.loaded() == ["a", "b"]
    some = lesions(tiny_model, 2)
    first = models.score(Question("predict", "a"), some)
    models.score(Question("predict", "c"), some)
    assert models.loaded() == ["a", "c"]
    models.score(Question("predict", "b"), some)
    assert models.loaded() == ["c", "b"]
    assert models.score(Question("predict", "a"), some) == first
    assert built == ["a", "b", "c", "b", "a"]


def test_without_a_bound_each_is_loaded_once(three, tiny_base, tiny_model):
    models = ModelStore(three, lambda bundle: Model(bundle, tiny_base))
    models.warm_up()
    for name in "abcabc":
        models.score(Question("predict", name), lesions(tiny_model, 1))
    assert models.loaded() == ["a", "b", "c"]


def test_a_model_that_was_changed_while_it_was_out_of_memory_is_not_loaded_again(three, tiny_base, tiny_model):
    models = ModelStore(three, lambda bundle: Model(bundle, tiny_base), lambda bundle: 100, memory=100)
    models.score(Question("predict", "a"), lesions(tiny_model, 1))
    models.score(Question("predict", "b"), lesions(tiny_model, 1))
    path = three[0].folder / ADAPTER
    path.write_bytes(path.read_bytes()[:-1] + b"\x7f")
    with pytest.raises(ModelUnavailableError) as refused:
        models.score(Question("predict", "a"), lesions(tiny_model, 1))
    assert "was changed or damaged" in str(refused.value.__cause__)
    assert str(refused.value) == "a"
    (three[2].folder / CARD).write_text((three[2].folder / CARD).read_text() + " ")
    with pytest.raises(ModelUnavailableError) as refused:
        models.score(Question("predict", "c"), lesions(tiny_model, 1))
    assert "was replaced while it was served" in str(refused.value.__cause__)


def test_the_weights_are_counted_before_they_are_loaded(tiny_model, tiny_base, fresh_cache):
    bundle = read_bundle(tiny_model)
    from radllm_backend.language.backbone import load_backbone
    from radllm_backend.language.base_models import locate

    there = sum(4 * tensor.numel() for tensor in load_backbone(locate(tiny_base)).parameters())
    assert weights_in_memory(bundle, str(tiny_base)) == there
    with pytest.raises(RadllmError, match=r"model tiny alone takes .* allow more"):
        ModelStore([bundle], memory=there - 1, size=lambda bundle: there)


def test_a_sample_can_be_read(tiny_model, tiny_base, fresh_cache):
    bundle = read_bundle(tiny_model)
    sample = sample_lesion(bundle.card)
    assert set(sample.values) == {row.feature for row in bundle.card.features}
    assert Model(bundle, tiny_base).predict(sample).probability > 0


class Marker:
    """What a pickle would do when it is read: leave a file."""

    def __init__(self, path: Path) -> None:
        self._path = path

    def __reduce__(self) -> tuple[Any, tuple[Path]]:
        return Path.touch, (self._path,)


def put(folder: Path, name: str, content: bytes) -> None:
    """A file that the card lists with its right hash."""
    (folder / name).write_bytes(content)
    card = json.loads((folder / CARD).read_text())
    card["files"][name] = hashlib.sha256(content).hexdigest()
    (folder / CARD).write_text(json.dumps(card))


def change(folder: Path, **changes: Any) -> None:
    card = json.loads((folder / CARD).read_text())
    (folder / CARD).write_text(json.dumps({**card, **changes}))


PEFT = {"peft_type": "LORA", "auto_mapping": {"base_model_class": "Evil", "parent_library": "evil.library"}}


def flip_a_byte(folder: Path, marker: Path) -> None:
    content = bytearray((folder / ADAPTER).read_bytes())
    content[-1] ^= 1
    (folder / ADAPTER).write_bytes(content)


def list_a_file_elsewhere(folder: Path, name: str) -> None:
    card = json.loads((folder / CARD).read_text())
    change(folder, files={**card["files"], name: "0" * 64})


def link_out(folder: Path, marker: Path) -> None:
    (folder / "README.md").unlink()
    (folder / "README.md").symlink_to(folder.parent / "elsewhere.md")


def putting(name: str, content: bytes | None = None) -> Callable[[Path, Path], None]:
    """Puts a file in, by default a pickle that leaves the marker when it is read."""
    return lambda folder, marker: put(folder, name, pickle.dumps(Marker(marker)) if content is None else content)


SPOILT: dict[str, tuple[Callable[[Path, Path], None], str]] = {
    "a pickle": (putting("head.pkl"), "can run code"),
    "a pickle of torch": (putting("adapter.bin"), "can run code"),
    "a pickle under the adapter's name": (putting(ADAPTER), "not a sound safetensors file"),
    "a changed byte": (flip_a_byte, "was changed or damaged"),
    "an adapter config naming another library": (
        putting("adapter_config.json", json.dumps(PEFT).encode()),
        "adapter_config.json, which is no part of a model",
    ),
    "auto_map": (
        putting("config.json", b'{"auto_map": {"AutoModel": "evil--modeling.Model"}}'),
        "config.json, which is no part of a model",
    ),
    "auto_map in the card": (lambda folder, marker: change(folder, auto_map={}), "malformed (auto_map)"),
    "code": (putting("modeling.py", b"raise SystemExit"), "can run code"),
    "a path traversal": (
        lambda folder, marker: list_a_file_elsewhere(folder, "../../outside.safetensors"),
        "lacks ../../outside.safetensors",
    ),
    "an absolute path": (lambda folder, marker: list_a_file_elsewhere(folder, str(marker)), "lacks "),
    "a link out of the folder": (link_out, "README.md, which is no part of a model"),
    "a header of 1 GB": (putting(ADAPTER, (1 << 30).to_bytes(8, "little") + b"{}"), "not a sound safetensors file"),
}


@pytest.mark.parametrize(("spoil", "sentence"), SPOILT.values(), ids=SPOILT)
def test_a_bundle_that_is_not_data_alone_is_refused_and_nothing_of_it_loaded(
    tiny_model, tiny_base, tmp_path, monkeypatch, spoil, sentence
):
    folder = Path(shutil.copytree(tiny_model, tmp_path / "spoilt"))
    spoil(folder, tmp_path / "ran")
    monkeypatch.setenv("XDG_RUNTIME_DIR", str(tmp_path))

    def loaded(*_: object, **__: object) -> None:
        raise AssertionError("something was loaded")

    for function in ("torch.load", "pickle.load", "pickle.loads", "safetensors.torch.load_file"):
        monkeypatch.setattr(function, loaded)
    finished = radllm("serve", "--model", folder, "--base-model", tiny_base)
    assert (finished.code, finished.output) == (1, "")
    assert sentence in finished.error
    assert finished.error.count("\n") == 1
    assert not (tmp_path / "ran").exists()
    assert not list(tmp_path.rglob("*.token"))
    finished = radllm("export", folder, "-o", tmp_path / "out", "--base-model", tiny_base)
    assert finished.code == 1
    assert not (tmp_path / "out").exists()


def test_a_pickle_in_the_place_of_a_fitted_classifier_is_never_unpickled(tiny_model, tiny_base, tmp_path, fresh_cache):
    pytest.importorskip("skops")
    folder = Path(shutil.copytree(tiny_model, tmp_path / "spoilt"))
    putting("fusion.skops")(folder, tmp_path / "ran")
    change(folder, head={"kind": "random forest", "pooling": "mean"})
    models = ModelStore([read_bundle(folder)], lambda bundle: Model(bundle, tiny_base))
    with pytest.raises(RadllmError, match="fusion.skops does not fit its model card"):
        models.warm_up()
    assert not (tmp_path / "ran").exists()
