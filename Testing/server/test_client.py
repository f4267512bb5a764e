"""The client: a model of a server is used as a model of this process, and whatever goes wrong is one sentence."""

from __future__ import annotations

import inspect
import json
import subprocess
import sys
import threading
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from http.server import BaseHTTPRequestHandler
from pathlib import Path

import numpy as np
import pytest

pytest.importorskip("torch")
pytest.importorskip("uvicorn")
from radllm_backend import Model, RadllmError
from radllm_backend.server import protocol
from radllm_backend.server.client import Client, RemoteModel, ServerError
from Testing.support.servers import lesions
from Testing.support.stand_ins import StandInServer

VERSION = {"protocol": protocol.PROTOCOL, "oldest_protocol": protocol.PROTOCOL, "radllm": "0.1.0", "engine": "radllm"}
Answer = tuple[int, object] | tuple[int, object, dict[str, str]]


@contextmanager
def pretender(answer: Callable[[str], Answer]) -> Iterator[str]:
    """A server that answers a path as it is told to; its address."""

    class Handler(BaseHTTPRequestHandler):
        protocol_version = "HTTP/1.1"

        def do_GET(self) -> None:
            self.rfile.read(int(self.headers.get("Content-Length", 0)))
            status, content, *headers = answer(self.path)
            body = content if isinstance(content, bytes) else json.dumps(content).encode()
            self.send_response(status)
            for name, value in {"Content-Length": str(len(body)), **(headers[0] if headers else {})}.items():
                self.send_header(name, value)
            self.end_headers()
            self.wfile.write(body)

        do_POST = do_GET

        def log_message(self, *_: object) -> None:
            pass

    server = StandInServer(("127.0.0.1", 0), Handler)
    threading.Thread(target=server.serve_forever, daemon=True).start()
    try:
        yield f"http://127.0.0.1:{server.server_port}"
    finally:
        server.shutdown()
        server.server_close()


@pytest.fixture(scope="module")
def remote(tiny_server) -> RemoteModel:
    return tiny_server.client().model("tiny")


@pytest.fixture(scope="module")
def model(tiny_model: Path, tiny_base: Path, tmp_path_factory: pytest.TempPathFactory) -> Model:
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("RADLLM_CACHE", str(tmp_path_factory.mktemp("cache")))
        loaded = Model.load(tiny_model, tiny_base)
        loaded.predict_many(lesions(tiny_model, 1), explain=False)
    return loaded


def test_a_remote_model_is_the_model(remote, model, tiny_model):
    some = lesions(tiny_model, 40, seed=11)
    assert (remote.name, remote.sha256, remote.identity) == (model.name, model.sha256, model.identity)
    assert remote.settings == model.settings
    assert remote.predict(some[0], confidence=0.9) == model.predict(some[0], confidence=0.9)
    assert remote.predict(some[1], explain=False) == model.predict(some[1], explain=False)
    assert remote.predict_many(some, explain=False) == model.predict_many(some, explain=False)
    assert remote.predict_many(some[:2]) == model.predict_many(some[:2])
    assert np.array_equal(remote.embed(some[:3]), model.embed(some[:3]))
    assert np.array_equal(remote.embed(some[:3], "mean"), model.embed(some[:3], "mean"))


@pytest.mark.parametrize("method", ["predict", "predict_many", "embed", "warm_up"])
def test_a_remote_model_is_called_as_the_model_is(method):
    here, there = (inspect.signature(getattr(kind, method)).parameters.values() for kind in (Model, RemoteModel))
    assert [(one.name, one.kind, one.default) for one in there] == [(one.name, one.kind, one.default) for one in here]


def test_the_models_own_words_come_through(remote, model, tiny_model):
    lesion = lesions(tiny_model, 1)[0]
    first = model.card.features[0].feature
    for values in ({**lesion.values, first: None}, {k: v for k, v in lesion.values.items() if k != first}):
        wrong = lesion.model_copy(update={"values": values})
        with pytest.raises(RadllmError) as here:
            model.predict(wrong)
        with pytest.raises(RadllmError) as there:
            remote.predict(wrong)
        assert str(there.value) == str(here.value)


def test_only_what_the_model_reads_is_sent(remote, tiny_model):
    lesion = lesions(tiny_model, 1)[0]
    sent = remote.sent(lesion)
    assert set(sent.values) == set(remote.served.features) < set(lesion.values)
    assert sent.extraction.model_dump() == lesion.extraction.model_dump()


@pytest.mark.parametrize(
    ("changes", "where"),
    [
        ({"preset": "Jane Doe"}, "extraction.preset"),
        ({"versions": {"jane": "doe"}}, "extraction.versions"),
        ({"modality": "XA"}, "extraction.modality"),
    ],
)
def test_what_may_not_be_sent_is_refused_here(remote, tiny_model, changes, where):
    lesion = lesions(tiny_model, 1)[0]
    wrong = lesion.model_copy(update={"extraction": lesion.extraction.model_copy(update=changes)})
    with pytest.raises(RadllmError, match=f"This lesion cannot be sent to a server \\({where}") as refused:
        remote.predict(wrong)
    assert "jane" not in str(refused.value).lower()


def test_progress_is_told_and_can_end_the_call(remote, tiny_model):
    some, told = lesions(tiny_model, 30, seed=12), []
    remote.predict_many(some, explain=False, progress=lambda what, done: told.append((what, done)))
    assert told[-1] == ("Predicting", 1.0)
    assert len(told) > 1
    assert [done for _, done in told] == sorted(done for _, done in told)

    def stop(what: str, done: float) -> None:
        raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        remote.predict_many(some, explain=False, progress=stop)
    assert len(remote.predict_many(some[:2], explain=False)) == 2


def test_many_threads_share_a_client(tiny_server, model, tiny_model):
    client, found = tiny_server.client(), {}

    def ask(seed: int) -> None:
        found[seed] = client.model("tiny").predict_many(lesions(tiny_model, 3, seed), explain=False)

    threads = [threading.Thread(target=ask, args=(seed,)) for seed in range(16)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert found == {seed: model.predict_many(lesions(tiny_model, 3, seed), explain=False) for seed in range(16)}
    client.close()
    assert client.alive()


def test_an_answer_is_not_held_back(tiny_server):
    client, times = tiny_server.client(), []
    for _ in range(40):
        started = time.perf_counter()
        client.alive()
        times.append(time.perf_counter() - started)
    assert sorted(times)[20] < 0.03  # Nagle's algorithm would cost 0.04


def test_a_model_that_is_not_served_or_was_replaced(tiny_server, remote, tiny_model):
    with pytest.raises(RadllmError, match="has no model breast-us: ask for tiny"):
        tiny_server.client().model("breast-us")
    identity = remote.identity.model_copy(update={"sha256": "0" * 64})
    other = RemoteModel(tiny_server.client(), remote.served.model_copy(update={"identity": identity}))
    with pytest.raises(ServerError, match="is another one than the one asked for") as refused:
        other.predict(lesions(tiny_model, 1)[0])
    assert refused.value.code == "other-model"
    with pytest.raises(RadllmError, match="confidence"):
        remote.predict(lesions(tiny_model, 1)[0], confidence=2)


def test_a_wrong_token_or_none(tiny_server, tmp_path):
    for wrong in ({"token": "x" * 43}, {"token": ""}, {}):
        with pytest.raises(ServerError, match="The token is missing or wrong") as refused:
            Client(tiny_server.ready.url, **wrong).models()
        assert refused.value.code == "bad-token"
    with pytest.raises(ServerError, match="cannot be read: check that the server runs"):
        Client(tiny_server.ready.url, token_file=tmp_path / "nowhere").models()


@pytest.mark.parametrize(
    ("version", "side"),
    [({"protocol": 9, "oldest_protocol": 5}, "client"), ({"protocol": 0, "oldest_protocol": 0}, "server")],
)
def test_another_version_says_which_side_to_update(version, side):
    with pretender(lambda path: (200, {**VERSION, **version})) as url:
        with pytest.raises(RadllmError, match=f"update the {side}'s radllm") as refused:
            Client(url, token="t").models()
        assert f"speaks version {protocol.PROTOCOL} of the protocol" in str(refused.value)


@pytest.mark.parametrize(
    "answer",
    [
        (200, b"<html>"),
        (200, {"hello": "world"}),
        (200, []),
        (404, b"Not found"),
        (302, b"", {"Location": "http://127.0.0.1:1/"}),
        (500, {"detail": "no"}),
    ],
)
def test_something_else_answers(answer):
    with pretender(lambda path: answer) as url:
        with pytest.raises(ServerError, match="is no radllm server of this version") as refused:
            Client(url, token="t").models()
        assert refused.value.code == "unreachable"
        assert not Client(url).alive()


def test_a_busy_server_is_asked_again_within_the_clients_patience():
    busy = {"code": "busy", "message": "The server has too much to do: try again in 0 s."}
    asked: list[str] = []

    def answer(path: str) -> Answer:
        asked.append(path)
        if path == "/ready" and asked.count("/ready") < 4:
            return 503, busy, {"Retry-After": "0"}
        return 200, VERSION if path == "/version" else {"status": "ready"}

    with pretender(answer) as url:
        Client(url, token="t").wait_until_ready()
        assert asked.count("/ready") == 4
        asked.clear()
        with pytest.raises(ServerError, match="too much to do") as refused:
            Client(url, token="t", patience=0).wait_until_ready()
        assert refused.value.code == "busy"


def test_a_connection_that_was_closed_meanwhile_is_opened_again():
    with pretender(lambda path: (200, VERSION if path == "/version" else {"status": "ready"})) as url:
        client = Client(url, token="t")
        client.wait_until_ready()
        client._threads.connection.sock.shutdown(2)  # as the server's end of an idle connection looks
        client.wait_until_ready()


def test_cancelling_from_another_thread():
    arrived = threading.Event()

    def answer(path: str) -> Answer:
        if path == "/ready":
            arrived.set()
            time.sleep(20)
        return 200, VERSION

    with pretender(answer) as url:
        client, errors = Client(url, token="t"), []

        def wait() -> None:
            try:
                client.wait_until_ready()
            except ServerError as error:
                errors.append(error)

        thread = threading.Thread(target=wait)
        thread.start()
        assert arrived.wait(10)
        started = time.monotonic()
        client.cancel()
        thread.join()
        assert time.monotonic() - started < 2
        assert [error.code for error in errors] == ["cancelled"]
        assert client.version().radllm == "0.1.0"


def test_nobody_answers_or_not_in_time():
    with pretender(lambda path: (200, VERSION)) as url:
        pass
    with pytest.raises(ServerError, match=f"The server at {url} does not answer .*: check that it runs") as gone:
        Client(url, token="t").models()
    assert gone.value.code == "unreachable"
    with pretender(lambda path: time.sleep(5) or (200, VERSION)) as url, pytest.raises(ServerError, match="in time"):
        Client(url, token="t", timeout=0.2).models()
    with pytest.raises(ServerError, match="does not answer"):
        Client("unix:/nowhere/socket", token="t").models()


@pytest.mark.parametrize(
    "url",
    ["", "localhost:80", "ftp://localhost", "http://", "http://u:p@localhost", "http://localhost/x", "http://[::1"],
)
def test_what_is_no_address(url):
    with pytest.raises(RadllmError, match="is no server's address"):
        Client(url)


def test_another_machine_needs_encryption(tmp_path):
    with pytest.raises(RadllmError, match="another machine without encryption"):
        Client("http://server.example:8000", token="t")
    Client("http://server.example:8000", token="t", allow_unencrypted=True)
    (tmp_path / "certificate.pem").write_text("nothing")
    with pytest.raises(RadllmError, match="holds no certificate"):
        Client("https://server.example:8000", token="t", certificate=tmp_path / "certificate.pem")


def test_the_client_needs_pydantic_and_numpy_and_nothing_else():
    code = (
        "import sys\n"
        "class Bare:\n"
        "    def find_spec(self, name, path=None, target=None):\n"
        "        allowed = {'radllm_backend', 'pydantic', 'pydantic_core', 'annotated_types', 'typing_extensions',\n"
        "                   'typing_inspection', 'numpy'}\n"
        "        top = name.split('.')[0]\n"
        "        if not top.startswith('_') and top not in allowed | set(sys.stdlib_module_names):\n"
        "            raise ImportError(name)\n"
        "sys.meta_path.insert(0, Bare())\n"
        "import radllm_backend.server.client, radllm_backend.server.local, radllm_backend.server.protocol\n"
        "radllm_backend.server.client.Client('http://127.0.0.1:1').alive()\n"
    )
    subprocess.run([sys.executable, "-c", code], check=True)


def test_the_two_sides_refuse_each_other_in_the_same_words():
    assert protocol.refused_protocol(protocol.PROTOCOL) == ""
    assert "update the server's radllm" in protocol.refused_protocol(protocol.PROTOCOL + 1)
    assert protocol.common_protocol(protocol.ServerVersion(**VERSION)) == protocol.PROTOCOL
