"""The shipped model over the socket: from the first second on it says what is going on, and then what `Model` says."""

from __future__ import annotations

import json
import os
import socket
import threading
import time

import pytest

pytest.importorskip("torch")
pytest.importorskip("uvicorn")
from radllm_backend import Model
from radllm_backend.language.base_model_cache import cache_folder
from radllm_backend.models.shipped import shipped_models
from radllm_backend.server.client import Client
from radllm_backend.server.local import LocalServer
from Testing.support.servers import ask, lesions, start

TOKEN = "0123456789abcdef" * 3


def free_port() -> int:
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        return int(probe.getsockname()[1])


@pytest.mark.skipif("breast-us" not in shipped_models(), reason="not shipped")
def test_the_shipped_model_says_the_same_over_the_socket(smollm2, tmp_path):
    port, started = free_port(), []
    options = ("--port", port, "--log-values")
    environment = {"RADLLM_TOKEN": TOKEN, "XDG_RUNTIME_DIR": str(tmp_path), "OMP_NUM_THREADS": str(os.cpu_count())}
    thread = threading.Thread(
        target=lambda: started.append(start("breast-us", None, cache_folder(), *options, **environment))
    )
    thread.start()
    client = Client(f"http://127.0.0.1:{port}", token=TOKEN, patience=400)
    until = time.monotonic() + 400
    while not client.alive():
        assert time.monotonic() < until
        time.sleep(0.02)
    client.wait_until_ready()  # it was alive before: the server says that it is loading, and the client waits
    thread.join()
    server: LocalServer = started[0]
    with server:
        (lesion,) = lesions("breast-us", 1, seed=1)
        there = client.model("breast-us").predict(lesion, explain=False)
        model = Model.load("breast-us")
        here = model.predict(lesion, explain=False)
        assert there.logit == pytest.approx(here.logit, abs=1e-6)
        assert there.model_dump(exclude={"logit", "probability"}) == here.model_dump(exclude={"logit", "probability"})
        lines = [json.loads(line) for line in server.log().splitlines() if line.startswith("{")]
        (asked,) = (line for line in lines if line["event"] == "lesions")  # as it was asked to
        feature = model.card.features[0].feature
        assert asked["lesions"][0]["values"][feature] == lesion.values[feature]
        assert {line["status"] for line in lines if line.get("path") == "/ready"} >= {503}
        assert ask(server, "GET", "/ready", headers={"Authorization": f"Bearer {TOKEN}"})[0] == 200
