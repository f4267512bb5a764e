"""Ten thousand requests that are wrong in every way leave the server as it was: alive, right, and no larger."""

from __future__ import annotations

import http.client
import json
import random
import socket
import threading
from collections import Counter
from collections.abc import Callable

import psutil
import pytest

pytest.importorskip("torch")
pytest.importorskip("uvicorn")
from radllm_backend.server import protocol
from Testing.support.servers import ask, body_of, headers_of, lesions, port_of

REQUESTS = 10_000
THREADS = 4
Case = tuple[dict[str, str], bytes, set[int]]
"""Headers that differ from the right ones, a body, and the statuses that may answer it."""


def broken_json(good: bytes, chance: random.Random) -> Case:
    place = chance.randrange(1, len(good) - 1)
    cut = [good[:place], good[:place] + b"\x00" + good[place:], good[place:], good + good, b"[" * place, b"\xff" + good]
    return {}, chance.choice(cut), {422}


def bad_number(good: bytes, chance: random.Random) -> Case:
    number = chance.choice([b"NaN", b"Infinity", b"-Infinity", b"1e308", b"-1e999", b"9" * 400, b"1e", b"0x1", b"true"])
    return (
        {},
        good.replace(b'"original_firstorder_Energy": ', b'"original_firstorder_Energy": ' + number + b", "),
        {422},
    )


def unknown_feature(good: bytes, chance: random.Random) -> Case:
    name = "".join(chance.choices("abc_-.\\u0000é💥", k=chance.randrange(1, 60)))
    return {}, good.replace(b"original_firstorder_Energy", json.dumps(name)[1:-1].encode()), {422}


def wrong_type(good: bytes, chance: random.Random) -> Case:
    content = json.loads(good)
    value = chance.choice(["text", [], {}, None, True, [[1]], {"a": {"b": []}}, "../../etc/passwd", 2**70])
    where = chance.choice(["model", "sha256", "lesions", "confidence", "lesion", "values", "extraction", "descriptors"])
    if where in ("values", "extraction", "descriptors"):
        content["lesions"][0][where] = [value]
    elif where == "lesion":
        content["lesions"][0] = value
    else:
        content[where] = [value]
    return {}, json.dumps(content).encode(), {422}


def duplicate_name(good: bytes, chance: random.Random) -> Case:
    name = chance.choice([b'"model"', b'"lesions"', b'"original_firstorder_Energy"', b'"extraction"'])
    return {}, good.replace(name, name + b": 1, " + name, 1), {422}


def huge_batch(good: bytes, chance: random.Random) -> Case:
    content = json.loads(good)
    content["lesions"] = [{"values": {}}] * chance.choice([257, 1000, 20_000])
    return {}, json.dumps(content).encode(), {422}


def many_features(good: bytes, chance: random.Random) -> Case:
    content = json.loads(good)
    content["lesions"][0]["values"] = {
        f"original_firstorder_F{number}": 1 for number in range(chance.choice([5, 5000]))
    }
    return {}, json.dumps(content).encode(), {422}


def wrong_host(good: bytes, chance: random.Random) -> Case:
    return {"Host": chance.choice(["evil.example", "127.0.0.1.evil.example", "localhost:80:80", "*"])}, good, {403}


def wrong_origin(good: bytes, chance: random.Random) -> Case:
    return {"Origin": chance.choice(["https://evil.example", "null", "http://127.0.0.1", "file://"])}, good, {403}


def wrong_token(good: bytes, chance: random.Random) -> Case:
    token = "".join(chance.choices("abcdefgh", k=chance.randrange(60)))
    return {"Authorization": chance.choice(["Bearer ", "Basic ", ""]) + token}, good, {401}


def wrong_content_type(good: bytes, chance: random.Random) -> Case:
    kind = chance.choice(["text/plain", "application/x-www-form-urlencoded", "multipart/form-data", "image/png", "x"])
    return {"Content-Type": kind}, good, {422}


def wrong_protocol(good: bytes, chance: random.Random) -> Case:
    return {protocol.PROTOCOL_HEADER: chance.choice(["99", "-1", "x", "1" * 200])}, good, {409, 422}


def unknown_model(good: bytes, chance: random.Random) -> Case:
    model = chance.choice(["tiny2", "TINY", "a" * 64, "a" * 65, "tiny/../tiny", ""])
    return {}, good.replace(b'"tiny"', json.dumps(model).encode()), {404, 422}


def no_body(good: bytes, chance: random.Random) -> Case:
    return {}, chance.choice([b"", b" ", b"null", b"0", b'""', b"[]", b"{}"]), {422}


KINDS: list[Callable[[bytes, random.Random], Case]] = [
    broken_json,
    bad_number,
    unknown_feature,
    wrong_type,
    duplicate_name,
    huge_batch,
    many_features,
    wrong_host,
    wrong_origin,
    wrong_token,
    wrong_content_type,
    wrong_protocol,
    unknown_model,
    no_body,
]
RARE = {huge_batch, many_features}
"""Large bodies: one in twenty of the others, so that the test ends."""


class Attacker(threading.Thread):
    """Sends malformed requests on few connections, and keeps every answer that was not expected."""

    def __init__(self, server, good: bytes, seed: int, count: int) -> None:
        super().__init__()
        self._port, self._headers, self._good, self._count = port_of(server), headers_of(server), good, count
        self._chance = random.Random(seed)
        self.statuses: Counter[int] = Counter()
        self.wrong: list[object] = []

    def run(self) -> None:
        weights = [1 if kind in RARE else 20 for kind in KINDS]
        connection = http.client.HTTPConnection("127.0.0.1", self._port, timeout=60)
        for kind in self._chance.choices(KINDS, weights, k=self._count):
            changes, body, expected = kind(self._good, self._chance)
            path = self._chance.choice(["/predict", "/explain", "/embed"])
            try:
                connection.request("POST", path, body, {**self._headers, **changes})
                response = connection.getresponse()
                text = response.read()
            except (OSError, http.client.HTTPException) as error:
                self.wrong.append((kind.__name__, repr(error), body[:200]))
                connection.close()
                continue
            self.statuses[response.status] += 1
            if response.status not in expected or set(json.loads(text)) != {"code", "message"}:
                self.wrong.append((kind.__name__, response.status, text[:200], changes, body[:200]))
        connection.close()


def half_requests(port: int, count: int) -> list[socket.socket]:
    """Connections that begin a request and do not go on."""
    open_ones = []
    for number in range(count):
        connection = socket.create_connection(("127.0.0.1", port), timeout=20)
        connection.sendall(
            (b"POST /predict HTTP/1.1\r\nHost: localhost\r\nContent-Length: 9\r\n\r\n{")[: 1 + 3 * number]
        )
        open_ones.append(connection)
    return open_ones


def attack(server, good: bytes, count: int, seed: int) -> Counter[int]:
    attackers = [Attacker(server, good, seed + number, count // THREADS) for number in range(THREADS)]
    for attacker in attackers:
        attacker.start()
    for attacker in attackers:
        attacker.join()
    assert [wrong for attacker in attackers for wrong in attacker.wrong][:3] == []
    return sum((attacker.statuses for attacker in attackers), Counter())


@pytest.mark.long
def test_ten_thousand_malformed_requests_change_nothing(tiny_server, tiny_model):
    some = lesions(tiny_model, 1, seed=5)
    good = json.dumps(body_of(some)).encode()
    before = ask(tiny_server, "POST", "/predict", body_of(some))[:2]
    assert before[0] == 200
    process = psutil.Process(tiny_server.ready.pid)
    attack(tiny_server, good, 400, seed=1000)  # whatever is allocated once, is allocated now
    memory = process.memory_info().rss

    slow = half_requests(port_of(tiny_server), 20)
    statuses = attack(tiny_server, good, REQUESTS, seed=0)
    cut_off = [connection.recv(1000) for connection in slow]

    assert sum(statuses.values()) == REQUESTS
    assert set(statuses) == {401, 403, 404, 409, 422}
    assert all(answer == b"" or b" 401 " in answer for answer in cut_off)
    assert ask(tiny_server, "POST", "/predict", body_of(some))[:2] == before
    assert ask(tiny_server, "POST", "/predict", body_of(lesions(tiny_model, 3, seed=6)))[0] == 200
    assert process.memory_info().rss < 1.1 * memory
    assert len(process.net_connections()) < 10
