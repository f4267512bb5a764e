"""The connections of a server: with deadlines where this uvicorn takes ours, and as uvicorn has them otherwise.

`deadlines` overrides methods of uvicorn's protocol for h11, which are not public. Before a server begins, a few short
conversations tell whether they are all still called, and do what they shall.
"""

from __future__ import annotations

import asyncio
import contextlib
import logging
import socket
from collections.abc import Iterator
from functools import partial
from typing import Any

import uvicorn
from starlette.types import Receive, Scope, Send

from radllm_backend.server.journal import note

REQUEST_SECONDS = 20.0
IDLE_SECONDS = 30
"""Between two requests of a connection."""
MOST_CONNECTIONS = 512
MOST_HEADER_BYTES = 16 * 1024
_PATIENCE = 10.0
"""Seconds for what takes a millisecond: a busy computer is not to be taken for another uvicorn."""
_SHORT = 0.02
_SOUND = b"GET / HTTP/1.1\r\nHost: localhost\r\n\r\n"


def connection_options(request_seconds: float) -> dict[str, Any]:
    """What `uvicorn.Config` is told of connections. Where they have no deadlines, the log says so and why.

    Args:
        request_seconds: from the first byte of a request, or from the connection, until all of it has to be there.
    """
    try:
        objection = asyncio.run(_objection())
    except Exception as error:  # whatever another version of uvicorn raises where something has changed or is gone
        objection = _words(error)
    if not objection:
        return {"http": _protocol(request_seconds, MOST_CONNECTIONS)}
    note(
        "requests have no deadline: what sets it does not fit this version of uvicorn",
        level=logging.WARNING,
        uvicorn=uvicorn.__version__,
        reason=objection,
    )
    return {"http": "h11", "limit_concurrency": MOST_CONNECTIONS}


def _protocol(request_seconds: float, most_connections: int) -> Any:
    from radllm_backend.server.deadlines import Connection

    return partial(Connection, request_seconds=request_seconds, most_connections=most_connections)


async def _objection() -> str:
    """What does not go as it shall; empty where all does."""
    mistakes: list[str] = []
    asyncio.get_running_loop().set_exception_handler(lambda _, context: mistakes.append(_mistake(context)))
    with _listening_to_uvicorn(mistakes):
        try:
            found = await _bad_answer() or await _held_connection()
        except TimeoutError:
            found = "a connection stays open"
    return mistakes[0] if mistakes else found


def _mistake(context: dict[str, Any]) -> str:
    """What asyncio caught."""
    error = context.get("exception")
    return _words(error) if error else str(context["message"])


def _words(error: BaseException) -> str:
    return f"{type(error).__name__}: {error}"


@contextlib.contextmanager
def _listening_to_uvicorn(mistakes: list[str]) -> Iterator[None]:
    """Its log, in which nothing of this appears, has the exceptions that it caught."""

    def listen(record: logging.LogRecord) -> bool:
        if record.exc_info and record.exc_info[1]:
            mistakes.append(_words(record.exc_info[1]))
        return False

    logger = logging.getLogger("uvicorn.error")
    logger.addFilter(listen)
    try:
        yield
    finally:
        logger.removeFilter(listen)


async def _bad_answer() -> str:
    """A request is answered and its connection closed when it idles; what is no HTTP gets a problem."""
    server = _Rehearsal(_PATIENCE)
    if not (await server.answer(_SOUND)).startswith(b"HTTP/1.1 200 "):
        return "a sound request is not answered"
    refused = await server.answer(b"\0\r\n\r\n")
    if not (refused.startswith(b"HTTP/1.1 400 ") and b'"code":"malformed"' in refused):
        return "what is no HTTP gets another answer"
    return ""


async def _held_connection() -> str:
    """Half a request loses its connection, one connection too many is cut off, and one that idles ends at the end."""
    if await _Rehearsal(_SHORT).answer(_SOUND[:9]):
        return "half a request is answered"
    server = _Rehearsal(_PATIENCE, most_connections=1)
    first, reader, writer = await server.connect()
    if await server.answer(_SOUND):
        return "there is no bound on connections"
    first.shutdown()
    if await _all_of(reader, writer):
        return "a connection that idles is answered"
    return ""


class _Rehearsal:
    """A server without a port, whose connections are pairs of sockets."""

    def __init__(self, request_seconds: float, most_connections: int = MOST_CONNECTIONS) -> None:
        self._protocol = _protocol(request_seconds, most_connections)
        self._config = uvicorn.Config(
            _app,
            http=self._protocol,
            ws="none",
            lifespan="off",
            log_config=None,
            access_log=False,
            timeout_keep_alive=0,
        )
        self._state = uvicorn.Server(self._config).server_state

    async def answer(self, request: bytes) -> bytes:
        """All that comes back until the server closes the connection."""
        _, reader, writer = await self.connect()
        writer.write(request)
        return await _all_of(reader, writer)

    async def connect(self) -> tuple[Any, asyncio.StreamReader, asyncio.StreamWriter]:
        """The server's end of a new connection, and the client's."""
        near, far = socket.socketpair()
        loop = asyncio.get_running_loop()
        make = partial(self._protocol, config=self._config, server_state=self._state, app_state={})
        _, protocol = await loop.connect_accepted_socket(make, near)
        return protocol, *await asyncio.open_connection(sock=far)


async def _all_of(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> bytes:
    """TimeoutError where the connection stays open."""
    try:
        async with asyncio.timeout(_PATIENCE):
            return await reader.read()
    except ConnectionError:
        return b""
    finally:
        writer.close()


async def _app(scope: Scope, receive: Receive, send: Send) -> None:
    await send({"type": "http.response.start", "status": 200, "headers": [(b"content-length", b"0")]})
    await send({"type": "http.response.body", "body": b""})
