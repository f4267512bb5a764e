"""How a server begins and ends: nothing is lost that it accepted, nothing is left that it made."""

from __future__ import annotations

import os
import shutil
import signal
import socket
import stat
import subprocess
import sys
import threading
import time
from collections.abc import Callable
from pathlib import Path

import psutil
import pytest

pytest.importorskip("torch")
pytest.importorskip("uvicorn")
from radllm_backend import Model, Prediction
from radllm_backend.errors import RadllmError
from radllm_backend.server.client import Client, ServerError
from radllm_backend.server.connection import Address
from Testing.support.command_line import radllm
from Testing.support.servers import lesions, start, token_of

POSIX = pytest.mark.skipif(os.name != "posix", reason="Unix sockets and signals")


@pytest.fixture
def short_folder():
    """A folder whose path is short enough for a Unix socket."""
    import tempfile

    with tempfile.TemporaryDirectory(prefix="radllm") as folder:
        yield Path(folder)


class Load:
    """Clients that ask until they are told to stop, and keep what they got."""

    def __init__(self, client: Client, model: Path, threads: int = 4) -> None:
        self.client, self.model = client, model
        self.answers: list[tuple[int, Prediction]] = []
        self.errors: list[RadllmError] = []
        self._stop = threading.Event()
        lesions(model, 1)  # PyRadiomics cannot check its settings for the first time in several threads at once
        # Daemons: a test that fails meanwhile ends all the same.
        self._threads = [threading.Thread(target=self._ask, args=(number,), daemon=True) for number in range(threads)]
        for thread in self._threads:
            thread.start()

    def _ask(self, seed: int) -> None:
        while not self._stop.is_set():
            seed += 100
            try:
                (prediction,) = self.client.model("tiny").predict_many(lesions(self.model, 1, seed), explain=False)
                self.answers.append((seed, prediction))
            except RadllmError as error:
                self.errors.append(error)
                time.sleep(0.05)

    def wait_for(self, condition: Callable[[], bool], seconds: float = 60) -> None:
        until = time.monotonic() + seconds
        while not condition():
            assert time.monotonic() < until, (len(self.answers), self.errors[-3:])
            time.sleep(0.02)

    def stop(self) -> None:
        self._stop.set()
        for thread in self._threads:
            thread.join()


@pytest.mark.long
@POSIX
def test_killed_under_load_and_started_again_and_stopped_under_load(tiny_model, tiny_base, short_folder, tmp_path):
    uds, token = short_folder / "s", tmp_path / "token"
    options = ("--uds", uds, "--token-file", token, "--batch", 1, "--remember", 0)
    first = start(tiny_model, tiny_base, tmp_path, *options)
    assert stat.S_IMODE(uds.stat().st_mode) == 0o600
    assert stat.S_ISSOCK(uds.stat().st_mode)
    load = Load(Client(f"unix:{uds}", token_file=token), tiny_model)
    load.wait_for(lambda: len(load.answers) > 20)
    first.process.send_signal(signal.SIGKILL)
    first.process.wait()

    load.wait_for(lambda: len(load.errors) > 8)
    assert {type(error) for error in load.errors} == {ServerError}, load.errors
    assert {error.code for error in load.errors} == {"unreachable"}
    sentences = {str(error) for error in load.errors}
    assert all(sentence.endswith("check that it runs, or start it again.") for sentence in sentences), sentences
    assert uds.exists()  # it had no chance to take them away
    old_token = token.read_text()

    with start(tiny_model, tiny_base, tmp_path, *options) as second:
        assert token.read_text() != old_token
        before = len(load.answers)
        load.wait_for(lambda: len(load.answers) > before + 20)
        load.stop()
        here = Model.load(tiny_model, tiny_base)
        for seed, prediction in load.answers[:: max(1, len(load.answers) // 20)]:
            (expected,) = here.predict_many(lesions(tiny_model, 1, seed), explain=False)
            assert prediction.logit == pytest.approx(expected.logit, abs=1e-6)
        _stop_while_requests_wait(second, tiny_model, here)
    assert not uds.exists()
    assert not token.exists()


def _stop_while_requests_wait(server, tiny_model: Path, here: Model) -> None:
    clients, answers = 48, {}
    late = server.client()
    late.wait_until_ready()

    def ask(seed: int) -> None:
        model = server.client().model("tiny")
        answers[seed] = model.predict_many(lesions(tiny_model, 4, seed), explain=True)

    threads = [threading.Thread(target=ask, args=(seed,), daemon=True) for seed in range(clients)]
    for thread in threads:
        thread.start()
    until = time.monotonic() + 60
    accepted = 0.0
    while accepted < 4 * clients - 1:  # one is being scored
        assert time.monotonic() < until
        waiting, scored = _numbers(server)
        accepted = waiting + scored
    assert waiting > 4
    server.process.send_signal(signal.SIGTERM)
    for thread in threads:
        thread.join(60)
    assert server.process.wait(30) == 0
    assert sorted(answers) == list(range(clients))
    for seed in (0, 11, clients - 1):
        expected = here.predict_many(lesions(tiny_model, 4, seed), explain=True)
        assert [one.logit for one in answers[seed]] == pytest.approx([one.logit for one in expected], abs=1e-6)
    with pytest.raises(ServerError, match="does not answer|cannot be read"):
        late.wait_until_ready()


def _numbers(server) -> tuple[float, float]:
    """Lesions in the queue, and lesions explained so far."""
    connection = Address.parse(server.ready.url).connection(None)
    connection.request("GET", "/metrics", headers={"Authorization": f"Bearer {token_of(server)}"})
    lines = connection.getresponse().read().decode().splitlines()
    connection.close()
    numbers = dict(line.rsplit(" ", 1) for line in lines if not line.startswith("#"))
    scored = numbers.get('radllm_lesions_total{call="explain",model="tiny"}', 0)
    return float(numbers["radllm_waiting_lesions"]), float(scored)


@pytest.mark.long
def test_over_tls_with_a_token_of_ones_own_until_the_parent_is_gone(tiny_model, tiny_base, tmp_path, monkeypatch):
    trustme = pytest.importorskip("trustme")
    authority = trustme.CA()
    authority.cert_pem.write_to_path(tmp_path / "ca.pem")
    certificate = authority.issue_cert("127.0.0.1", "localhost")
    certificate.private_key_pem.write_to_path(tmp_path / "key.pem")
    certificate.cert_chain_pems[0].write_to_path(tmp_path / "certificate.pem")
    token = "a" * 20 + "B_-7" * 5
    parent = subprocess.Popen([sys.executable, "-c", "input()"], stdin=subprocess.PIPE)
    tls = ("--tls-certificate", tmp_path / "certificate.pem", "--tls-key", tmp_path / "key.pem")
    with start(tiny_model, tiny_base, tmp_path, *tls, "--parent-pid", parent.pid, RADLLM_TOKEN=token) as server:
        assert server.ready.token_file is None
        assert server.ready.url.startswith("https://127.0.0.1:")
        assert not list(tmp_path.rglob("*.token"))
        client = Client(server.ready.url, token=token, certificate=tmp_path / "ca.pem")
        assert client.model("tiny").name == "tiny"
        with pytest.raises(ServerError, match="does not answer .*certificate"):
            Client(server.ready.url, token=token).version()
        with pytest.raises(ServerError, match="The token is missing or wrong"):
            Client(server.ready.url, token="x" * 40, certificate=tmp_path / "ca.pem").version()
        assert psutil.pid_exists(server.ready.pid)
        parent.kill()  # and not reaped: it is a zombie now
        assert server.process.wait(20) == 0
        parent.wait()


@POSIX
def test_stopped_while_it_loads(tiny_model, tiny_base, short_folder, tmp_path):
    uds, token = short_folder / "s", tmp_path / "token"
    command = [sys.executable, "-m", "radllm_backend", "serve", "--model", tiny_model, "--base-model", tiny_base]
    environment = {**os.environ, "RADLLM_CACHE": str(tmp_path)}
    process = subprocess.Popen(
        [*command, "--uds", uds, "--token-file", token],
        stdout=subprocess.PIPE,
        stderr=subprocess.DEVNULL,
        env=environment,
    )
    client = Client(f"unix:{uds}", token_file=token)
    until = time.monotonic() + 120
    while not client.alive():
        assert time.monotonic() < until
        time.sleep(0.01)
    process.terminate()
    process.communicate(timeout=120)
    assert process.returncode == 0
    assert not uds.exists()
    assert not token.exists()


def test_two_servers_do_not_share_a_port_or_a_socket(tiny_server, tiny_model, tiny_base, short_folder):
    port = tiny_server.ready.url.rpartition(":")[2]
    finished = radllm("serve", "--model", tiny_model, "--base-model", tiny_base, "--port", port)
    assert (finished.code, finished.output) == (1, "")
    assert f"cannot listen on 127.0.0.1 port {port}" in finished.error
    if hasattr(socket, "AF_UNIX"):
        with socket.socket(socket.AF_UNIX) as other:
            other.bind(str(short_folder / "s"))
            other.listen()
            finished = radllm("serve", "--model", tiny_model, "--uds", short_folder / "s")
        assert "A server listens on" in finished.error
        assert (short_folder / "s").exists()


REFUSED = {
    "another address without encryption": (["--host", "0.0.0.0"], "--allow-unencrypted if nobody else"),
    "half of TLS": (["--tls-key", "key.pem"], "TLS needs both files"),
    "a parent that is gone": (["--parent-pid", "4000000"], "There is no process 4000000"),
    "a token file that is something else": (["--token-file", "notes.txt"], "notes.txt exists and holds no token"),
    "a token file in no folder": (["--token-file", "nowhere/token"], "cannot be written to"),
    "a socket that is a file": (["--uds", "notes.txt"], "notes.txt exists and is no socket"),
    "a socket in no folder": (["--uds", "nowhere/s"], "cannot listen on"),
    "a long socket": (["--uds", "s" * 200], "cannot listen on"),
    "an unknown model": (["--model", "brest-us"], "There is no model 'brest-us'"),
    "two models of one name": (["--model", "again"], "Two models are called tiny"),
    "too little memory": (["--memory", "0.001"], "allow more"),
    "vllm without its address": (["--engine", "vllm"], "The engine vllm and --url go together"),
    "an address without vllm": (["--url", "http://localhost:1"], "The engine vllm and --url go together"),
    "an address that is none": (["--engine", "vllm", "--url", "localhost"], "no address of a vLLM server"),
}


@pytest.mark.parametrize(("arguments", "sentence"), REFUSED.values(), ids=REFUSED)
def test_what_cannot_be_served_is_one_sentence_and_leaves_nothing(
    tiny_model, tiny_base, tmp_path, monkeypatch, arguments, sentence
):
    monkeypatch.chdir(tmp_path)
    monkeypatch.setenv("XDG_RUNTIME_DIR", str(tmp_path))
    monkeypatch.setenv("RADLLM_CACHE", str(tmp_path / "cache"))
    Path("notes.txt").write_text("Remember the milk.")
    if "again" in arguments:
        shutil.copytree(tiny_model, "again")
    if "--memory" in arguments:
        monkeypatch.setattr("radllm_backend.server.models._FP32", 4000)
    finished = radllm("serve", "--model", tiny_model, "--base-model", tiny_base, *arguments)
    assert finished.code == 1
    assert sentence in finished.error
    assert finished.output == ""
    assert finished.error.count("\n") == 1
    assert Path("notes.txt").read_text() == "Remember the milk."
    assert not list(tmp_path.rglob("*.token"))


@pytest.mark.parametrize("token", ["", "short", "with space " * 5, "ü" * 40])
def test_a_weak_token_is_refused(tiny_model, monkeypatch, token):
    monkeypatch.setenv("RADLLM_TOKEN", token)
    finished = radllm("serve", "--model", tiny_model)
    assert (finished.code, "RADLLM_TOKEN is not safe" in finished.error) == (1, True)


def test_what_dead_servers_left_is_removed(tmp_path, monkeypatch):
    from radllm_backend.server.files import default_token_file, token_file

    monkeypatch.setenv("XDG_RUNTIME_DIR", str(tmp_path))
    gone = subprocess.Popen([sys.executable, "-c", ""])
    gone.wait()
    own = default_token_file()
    dead, alive = own.with_name(f"server-{gone.pid}.token"), own.with_name(f"server-{os.getppid()}.token")
    for file in (dead, alive):
        file.write_text("t" * 43)
    assert default_token_file() == own
    assert (dead.exists(), alive.exists()) == (False, True)
    with token_file(own, "n" * 43):
        assert own.read_text() == "n" * 43 + "\n"
        own.write_text("of another server")
    assert own.exists()  # only what is ours is removed
