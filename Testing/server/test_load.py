"""Many at once: every answer is the right one, a full queue says so, and who hangs up costs nothing more."""

from __future__ import annotations

import http.client
import json
import threading
import time
from pathlib import Path

import pytest

pytest.importorskip("torch")
pytest.importorskip("uvicorn")
from radllm_backend import Model
from radllm_backend.server import protocol
from Testing.support.servers import ask, body_of, headers_of, lesions, port_of

CLIENTS, REQUESTS = 64, 50


@pytest.fixture(scope="module")
def model(tiny_model: Path, tiny_base: Path, tmp_path_factory: pytest.TempPathFactory) -> Model:
    """The served model in this process."""
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("RADLLM_CACHE", str(tmp_path_factory.mktemp("cache")))
        loaded = Model.load(tiny_model, tiny_base)
        loaded.predict_many(lesions(tiny_model, 1), explain=False)
    return loaded


def metric(server, name: str) -> float:
    lines = ask(server, "GET", "/metrics")[1].splitlines()
    return sum(float(line.split()[-1]) for line in lines if line.startswith((name + " ", name + "{")))


@pytest.mark.long
def test_sixty_four_clients_get_exactly_their_own_answers(tiny_server, model, tiny_model):
    pool = lesions(tiny_model, 400, seed=3)
    here = {one.extraction.image_sha256: one for one in model.predict_many(pool, explain=False)}
    wrong, answered = [], []

    def client(number: int) -> None:
        connection = http.client.HTTPConnection("127.0.0.1", port_of(tiny_server), timeout=120)
        headers = headers_of(tiny_server)
        for request in range(REQUESTS):
            lesion = pool[(number * 131 + request * 17) % len(pool)]
            connection.request("POST", "/predict", json.dumps(body_of([lesion])), headers)
            response = connection.getresponse()
            (found,) = json.loads(response.read())["predictions"]
            expected = here[lesion.extraction.image_sha256]
            answered.append(response.status)
            errors = [abs(found[key] - getattr(expected, key)) for key in ("logit", "probability")]
            if found["extraction"]["image_sha256"] != lesion.extraction.image_sha256 or max(errors) > 1e-6:
                wrong.append((found["logit"], expected.logit))
        connection.close()

    threads = [threading.Thread(target=client, args=(number,)) for number in range(CLIENTS)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert wrong == []
    assert answered == [200] * (CLIENTS * REQUESTS)


def test_a_full_queue_says_when_to_come_back_and_who_hangs_up_costs_no_more(tiny_server, tiny_model):
    before, count = metric(tiny_server, "radllm_lesions_total"), 5
    bodies = [json.dumps(body_of(lesions(tiny_model, protocol.MOST_LESIONS, seed=400 + n))) for n in range(count)]
    refused: list[tuple[int, dict, str | None]] = []
    connections = [http.client.HTTPConnection("127.0.0.1", port_of(tiny_server), timeout=60) for _ in bodies]

    def send(connection: http.client.HTTPConnection, body: str) -> None:
        try:
            connection.request("POST", "/explain", body, headers_of(tiny_server))
            response = connection.getresponse()
            refused.append((response.status, json.loads(response.read()), response.headers["Retry-After"]))
        except (OSError, http.client.HTTPException, AttributeError):
            pass  # hung up

    threads = [threading.Thread(target=send, args=pair) for pair in zip(connections, bodies, strict=True)]
    for thread in threads:
        thread.start()
    until = time.monotonic() + 30
    while not any(status == 503 for status, _, _ in refused):
        assert time.monotonic() < until, refused
        time.sleep(0.02)
    _, problem, retry_after = next(one for one in refused if one[0] == 503)
    assert problem["code"] == "busy"
    assert int(retry_after) >= 1
    assert problem["message"] == f"The server has too much to do: try again in {retry_after} s."

    for connection in connections:
        if connection.sock:
            connection.sock.shutdown(2)
    for thread in threads:
        thread.join()
    while metric(tiny_server, "radllm_waiting_lesions"):
        assert time.monotonic() < until
        time.sleep(0.05)
    assert metric(tiny_server, "radllm_lesions_total") - before < 0.4 * count * protocol.MOST_LESIONS
    assert ask(tiny_server, "POST", "/predict", body_of(lesions(tiny_model, 1, seed=77)))[0] == 200
