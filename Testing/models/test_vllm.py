"""A model exported for vLLM says the same as here, and a server that is not what it should be is found out.

vLLM itself needs a GPU: its part is played by transformers' own ``LlamaForSequenceClassification`` on the exported
folder, behind the contract of vLLM's ``/classify``.
"""

from __future__ import annotations

import json
import shutil
import threading
from collections.abc import Callable, Iterator
from http.server import BaseHTTPRequestHandler
from pathlib import Path
from typing import Any

import pytest

torch = pytest.importorskip("torch")
pytest.importorskip("uvicorn")
from radllm_backend import Model
from radllm_backend.errors import RadllmError
from radllm_backend.models.bundle import read_bundle
from radllm_backend.models.export import export, require_lora_head
from radllm_backend.models.vllm import EngineError, VllmClassifier, VllmModel
from radllm_backend.server.client import ServerError
from Testing.support.command_line import radllm, succeed
from Testing.support.servers import lesions, start
from Testing.support.stand_ins import StandInServer

Change = Callable[[dict[str, Any]], Any]


class PretendedVllm:
    """Answers ``/classify`` as vLLM does, with the exported model's probabilities."""

    def __init__(self, folder: Path, name: str) -> None:
        from tokenizers import Tokenizer
        from transformers import AutoModelForSequenceClassification

        self.name = name
        self.model = AutoModelForSequenceClassification.from_pretrained(folder, local_files_only=True).eval()
        self.tokenizer = Tokenizer.from_file(str(folder / "tokenizer.json"))
        self.requests: list[dict[str, Any]] = []
        self.keys: list[str | None] = []
        self.status, self.change = 200, (lambda answer: answer)
        pretended = self

        class Handler(BaseHTTPRequestHandler):
            protocol_version = "HTTP/1.1"

            def do_POST(self) -> None:
                asked = json.loads(self.rfile.read(int(self.headers["Content-Length"])))
                pretended.keys.append(self.headers.get("Authorization"))
                status, content = pretended.answer(self.path, asked)
                body = content if isinstance(content, bytes) else json.dumps(content).encode()
                self.send_response(status)
                self.send_header("Content-Length", str(len(body)))
                self.end_headers()
                self.wfile.write(body)

            def log_message(self, *_: object) -> None:
                pass

        self.server = StandInServer(("127.0.0.1", 0), Handler)
        self.url = f"http://127.0.0.1:{self.server.server_port}"
        threading.Thread(target=self.server.serve_forever, daemon=True).start()

    def answer(self, path: str, asked: dict[str, Any]) -> tuple[int, Any]:
        self.requests.append(asked)
        if path != "/classify" or asked["model"] != self.name:
            return 404, {"error": {"message": f"The model `{asked['model']}` does not exist.", "code": 404}}
        if self.status != 200:
            return self.status, {"error": {"message": "no", "code": self.status}}
        data = []
        for index, prompt in enumerate(asked["input"]):
            tokens = torch.tensor([self.tokenizer.encode(prompt).ids])
            with torch.inference_mode():
                probs = self.model(input_ids=tokens).logits[0].float().softmax(-1).tolist()
            label = self.model.config.id2label[max(range(2), key=probs.__getitem__)]
            data.append({"index": index, "label": label, "probs": probs, "num_classes": 2})
        answer = {
            "id": "classify-9bf17f2847b046c7b2d5495f4b4f9682",
            "object": "list",
            "created": 1745383213,
            "model": self.name,
            "data": data,
            "usage": {"prompt_tokens": 10, "total_tokens": 10, "completion_tokens": 0, "prompt_tokens_details": None},
        }
        return 200, self.change(answer)


@pytest.fixture(scope="module")
def cache(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Path]:
    folder = tmp_path_factory.mktemp("cache")
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("RADLLM_CACHE", str(folder))
        yield folder


@pytest.fixture(scope="module")
def exported(tiny_model: Path, tiny_base: Path, tmp_path_factory: pytest.TempPathFactory, cache: Path) -> Path:
    folder = tmp_path_factory.mktemp("exported") / "tiny"
    output = succeed("export", tiny_model, "-o", folder, "--base-model", tiny_base).output
    assert f"--served-model-name tiny-{read_bundle(tiny_model).sha256[:12]}" in output
    return folder


@pytest.fixture
def vllm(exported: Path, tiny_model: Path) -> Iterator[PretendedVllm]:
    pretended = PretendedVllm(exported, f"tiny-{read_bundle(tiny_model).sha256[:12]}")
    yield pretended
    pretended.server.shutdown()
    pretended.server.server_close()


def test_the_exported_folder_is_data_that_others_can_read(exported):
    assert {path.name for path in exported.iterdir()} == {
        "config.json",
        "model.safetensors",
        "tokenizer.json",
        "tokenizer_config.json",
    }
    config = json.loads((exported / "config.json").read_text())
    assert config["architectures"] == ["LlamaForSequenceClassification"]
    assert config["id2label"] == {"0": "benign", "1": "malignant"}
    assert "auto_map" not in config


def test_the_predictions_are_the_same(vllm, tiny_model, tiny_base, cache):
    some = lesions(tiny_model, 70, seed=21)
    here = Model.load(tiny_model, tiny_base).predict_many(some[:20], explain=True)
    model = VllmModel(read_bundle(tiny_model), vllm.url)
    there = model.predict_many(some[:20], explain=True)
    assert [one.logit for one in there] == pytest.approx([one.logit for one in here], abs=2e-6)
    assert [one.probability for one in there] == pytest.approx([one.probability for one in here], abs=1e-6)
    for one, other in zip(there, here, strict=True):
        assert [share.effect for share in one.features] == pytest.approx(
            [share.effect for share in other.features], abs=1e-5
        )
        assert (one.prompt, one.call, one.cautions) == (other.prompt, other.call, other.cautions)
    vllm.requests.clear()
    told: list[float] = []
    model.predict_many(some + some, explain=False, progress=lambda what, done: told.append(done))
    assert [len(asked["input"]) for asked in vllm.requests] == [64, 6]  # each prompt once, in batches
    assert told == [64 / 70, 1.0]
    assert all(set(asked) == {"model", "input"} for asked in vllm.requests)


def test_the_server_serves_through_it(vllm, tiny_model, tiny_base, cache, tmp_path):
    some = lesions(tiny_model, 5, seed=22)
    here = Model.load(tiny_model, tiny_base).predict_many(some, explain=False)
    options = ("--engine", "vllm", "--url", vllm.url)
    with start(tiny_model, None, tmp_path, *options, RADLLM_VLLM_KEY="secret") as server:
        client = server.client(patience=0)
        assert client.version().engine == "vllm"
        model = client.model("tiny")
        there = model.predict_many(some, explain=False)
        assert [one.probability for one in there] == pytest.approx([one.probability for one in here], abs=1e-6)
        assert set(vllm.keys) == {"Bearer secret"}
        with pytest.raises(RadllmError, match="The engine vllm gives no hidden states"):
            model.embed(some)
        vllm.status = 500
        with pytest.raises(ServerError, match="the server's log says why") as refused:
            model.predict_many(lesions(tiny_model, 1, seed=23), explain=False)
        assert refused.value.code == "unavailable"
        assert "status 500" in server.log()
        assert "secret" not in server.log()
        vllm.status = 200
        assert len(model.predict_many(lesions(tiny_model, 1, seed=23), explain=False)) == 1


def test_a_server_that_cannot_reach_it_does_not_start(tiny_model, vllm, monkeypatch, tmp_path):
    monkeypatch.setenv("XDG_RUNTIME_DIR", str(tmp_path))
    vllm.name = "tiny-000000000000"
    finished = radllm("serve", "--model", tiny_model, "--engine", "vllm", "--url", vllm.url)
    assert (finished.code, finished.output) == (1, "")
    assert "does not serve tiny-" in finished.error
    assert list(tmp_path.rglob("*.token")) == []


def without_last(answer: dict[str, Any]) -> dict[str, Any]:
    return {**answer, "data": answer["data"][:-1]}


def with_probs(*probs: float) -> Change:
    return lambda answer: {**answer, "data": [{**row, "probs": list(probs)} for row in answer["data"]]}


@pytest.mark.parametrize(
    ("change", "sentence"),
    [
        (lambda answer: b"<html>", "does not classify as vLLM does"),
        (lambda answer: {**answer, "data": None}, "does not classify as vLLM does"),
        (lambda answer: {"logits": [0.0]}, "does not classify as vLLM does"),
        (with_probs(1.0), "does not classify as vLLM does"),
        (without_last, "something else than it was asked"),
        (lambda answer: {**answer, "model": "another"}, "something else than it was asked"),
        (with_probs(0.0, 1.0), "gives no probabilities"),
        (with_probs(-0.3, 2.1), "gives no probabilities"),
        (with_probs(0.7, 0.7), "gives no probabilities"),
    ],
)
def test_an_answer_outside_the_contract_is_no_score(vllm, change, sentence):
    vllm.change = change
    with pytest.raises(EngineError, match=sentence):
        VllmClassifier(vllm.url, vllm.name, 0.0).score(["one prompt", "another"])


def test_rows_in_another_order_are_put_right(vllm):
    classifier = VllmClassifier(vllm.url, vllm.name, 0.0)
    prompts = [f"The 'Contrast' feature is measured at {number}.000." for number in range(5)]
    before = classifier.score(prompts)
    vllm.change = lambda answer: {**answer, "data": answer["data"][::-1]}
    assert classifier.score(prompts) == before
    assert len(set(before)) > 1


def test_nothing_there_and_no_address():
    with pytest.raises(EngineError, match="does not answer: check that it runs"):
        VllmClassifier("http://127.0.0.1:9", "tiny", 0.0).score(["prompt"])
    nowhere = ("http://host:99999", "http://host:port", "http://[::1")
    for url in ("", "localhost:8000", "ftp://host", "http://user:password@host", "file:///etc/passwd", *nowhere):
        with pytest.raises(RadllmError, match="no address of a vLLM server"):
            VllmClassifier(url, "tiny", 0.0)


def test_what_cannot_be_exported(tiny_model, tiny_base, exported, tmp_path, cache):
    bundle = read_bundle(tiny_model)
    with pytest.raises(RadllmError, match="exists already"):
        export(bundle, exported, tiny_base)
    (tmp_path / "file").write_text("")
    with pytest.raises(RadllmError, match="cannot be written"):
        export(bundle, tmp_path / "file" / "model", tiny_base)
    assert [path.name for path in tmp_path.iterdir()] == ["file"]
    with pytest.raises(RadllmError, match="hidden states together with the features"):
        require_lora_head(bundle.card.model_copy(update={"adapter": None, "method": "frozen, fused"}))
    shutil.rmtree(tmp_path / "empty", ignore_errors=True)
    (tmp_path / "empty").mkdir()
    assert export(bundle, tmp_path / "empty", tiny_base).startswith("tiny-")
