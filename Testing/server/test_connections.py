"""Connections have deadlines where uvicorn is as we know it; elsewhere they are its own, and the log says so."""

from __future__ import annotations

import http.client
import json
import logging
import re
import socket
import sys
import threading
from collections.abc import Iterator

import pytest

uvicorn = pytest.importorskip("uvicorn")
from uvicorn.protocols.http.h11_impl import H11Protocol

from radllm_backend.server import connections, deadlines
from radllm_backend.server.connections import MOST_CONNECTIONS, connection_options
from radllm_backend.server.journal import LOGGER, JsonLines

UVICORNS_OWN = {"http": "h11", "limit_concurrency": MOST_CONNECTIONS}


@pytest.fixture
def log() -> Iterator[list[dict]]:
    """The lines of the server's log."""
    lines: list[dict] = []

    class Handler(logging.Handler):
        def emit(self, record: logging.LogRecord) -> None:
            lines.append(json.loads(JsonLines().format(record)))

    handlers = {name: Handler() for name in (LOGGER.name, "uvicorn.error", "asyncio")}
    for name, handler in handlers.items():
        logging.getLogger(name).addHandler(handler)
    yield lines
    for name, handler in handlers.items():
        logging.getLogger(name).removeHandler(handler)


def test_usually_they_have_deadlines_and_the_log_says_nothing(log):
    protocol = connection_options(7.0)["http"]
    assert protocol.func is deadlines.Connection
    assert protocol.keywords == {"request_seconds": 7.0, "most_connections": MOST_CONNECTIONS}
    assert not log
    assert not logging.getLogger("uvicorn.error").filters


# --- another uvicorn ------------------------------------------------------------------------------------------------


def elsewhere(patch):
    """It keeps the protocol somewhere else."""
    patch.delitem(sys.modules, "radllm_backend.server.deadlines")
    patch.delattr("radllm_backend.server.deadlines")
    patch.setitem(sys.modules, "uvicorn.protocols.http.h11_impl", None)


def made_otherwise(patch):
    begin = H11Protocol.__init__
    patch.setattr(H11Protocol, "__init__", lambda self, *, limits, **named: begin(self, **named))


def called_otherwise(patch):
    receive = H11Protocol.data_received
    patch.setattr(H11Protocol, "data_received", lambda self, data, more: receive(self, data))


def completed_otherwise(patch):
    patch.delattr(H11Protocol, "on_response_complete")


def idle_otherwise(patch):
    patch.delattr(H11Protocol, "timeout_keep_alive_handler")


def without_a_loop(patch):
    begin = H11Protocol.connection_made

    def connection_made(self, transport):
        begin(self, transport)
        del self.loop

    patch.setattr(H11Protocol, "connection_made", connection_made)


def refused_otherwise(patch):
    """It answers what is no HTTP by another method than the one that is ours."""
    patch.setattr(deadlines.Connection, "send_400_response", H11Protocol.send_400_response)


def not_counted(patch):
    begin = H11Protocol.connection_made

    def connection_made(self, transport):
        begin(self, transport)
        self.connections = set()

    patch.setattr(H11Protocol, "connection_made", connection_made)


def stopped_otherwise(patch):
    patch.setattr(H11Protocol, "shutdown", lambda self, grace: None)


@pytest.mark.parametrize(
    ("change", "reason"),
    [
        (elsewhere, "ModuleNotFoundError: import of uvicorn.protocols.http.h11_impl halted"),
        (made_otherwise, "TypeError: .*'limits'"),
        (called_otherwise, "TypeError: .*'more'"),
        (completed_otherwise, "AttributeError: .*'on_response_complete'"),
        (idle_otherwise, "AttributeError: .*'timeout_keep_alive_handler'"),
        (without_a_loop, "AttributeError: .*'loop'"),
        (refused_otherwise, "what is no HTTP gets another answer"),
        (not_counted, "there is no bound on connections"),
        (stopped_otherwise, "TypeError: .*'grace'"),
    ],
    ids=lambda one: getattr(one, "__name__", ""),
)
def test_another_uvicorn_s_connections_are_its_own_and_the_log_says_so(change, reason, log, monkeypatch):
    monkeypatch.setattr(connections, "_PATIENCE", 0.5)
    with monkeypatch.context() as patch:
        change(patch)
        assert connection_options(7.0) == UVICORNS_OWN
    (line,) = log
    assert (line["level"], line["uvicorn"]) == ("warning", uvicorn.__version__)
    assert line["event"].startswith("requests have no deadline")
    assert re.match(reason, line["reason"])


def test_a_deadline_that_is_not_set_is_noticed(log, monkeypatch):
    monkeypatch.setattr(connections, "_PATIENCE", 0.5)
    monkeypatch.setattr(deadlines.Connection, "_set_deadline", lambda self: None)
    assert connection_options(7.0) == UVICORNS_OWN
    assert [line["reason"] for line in log] == ["a connection stays open"]


def test_uvicorn_s_own_connections_answer():
    config = uvicorn.Config(connections._app, **UVICORNS_OWN, lifespan="off", log_config=None, ws="none")
    server = uvicorn.Server(config)
    with socket.create_server(("127.0.0.1", 0)) as bound:
        thread = threading.Thread(target=server.run, kwargs={"sockets": [bound]})
        thread.start()
        connection = http.client.HTTPConnection(*bound.getsockname(), timeout=30)
        connection.request("GET", "/")
        assert connection.getresponse().status == 200
        connection.close()
        server.should_exit = True
        thread.join(30)
    assert not thread.is_alive()
