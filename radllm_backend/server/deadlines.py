"""Connections that cannot be held for nothing: a deadline for every request to arrive, and a bound on their number.

They stand on the inside of uvicorn's protocol, which is not public: `connections` tries them before a server begins.
"""

from __future__ import annotations

import asyncio
from typing import Any

import h11
from uvicorn.protocols.http.h11_impl import H11Protocol

from radllm_backend.server import protocol

_GOODBYE_SECONDS = 1.0


class Connection(H11Protocol):
    """One connection. A client that sends a byte now and then, or nothing at all, loses it."""

    def __init__(self, *arguments: Any, request_seconds: float, most_connections: int, **named: Any) -> None:
        """
        Args:
            request_seconds: from the first byte of a request, or from the connection, until all of it has to be there.
            most_connections: of the whole server; one more is cut off at once.
        """
        super().__init__(*arguments, **named)
        self.request_seconds = request_seconds
        self.most_connections = most_connections
        self._deadline: asyncio.TimerHandle | None = None

    # As uvicorn has it, whose server gives no other transport, though asyncio would allow one.
    def connection_made(self, transport: asyncio.Transport) -> None:  # type: ignore[override]
        super().connection_made(transport)
        if len(self.connections) > self.most_connections:
            transport.abort()
        else:
            self._set_deadline()

    def connection_lost(self, exc: Exception | None) -> None:
        self._clear_deadline()
        super().connection_lost(exc)

    def data_received(self, data: bytes) -> None:
        super().data_received(data)
        if self.conn.their_state in (h11.DONE, h11.MUST_CLOSE, h11.CLOSED):
            self._clear_deadline()
        elif self._deadline is None and not self.transport.is_closing():
            self._set_deadline()

    def send_400_response(self, msg: str) -> None:
        """What is no HTTP gets a problem too."""
        if self.conn.our_state not in (h11.IDLE, h11.SEND_RESPONSE):
            self.transport.close()
            return
        problem = protocol.Problem(code="malformed", message="This is not a sound HTTP request.")
        headers = [(b"content-type", b"application/json"), (b"connection", b"close")]
        events: tuple[h11.Event, ...] = (
            h11.Response(status_code=400, headers=headers, reason=b"Bad Request"),
            h11.Data(data=problem.model_dump_json().encode()),
            h11.EndOfMessage(),
        )
        for event in events:
            self.transport.write(self.conn.send(event) or b"")
        self.transport.close()

    def on_response_complete(self) -> None:
        super().on_response_complete()
        self._close_soon()

    def shutdown(self) -> None:
        super().shutdown()
        self._close_soon()

    def timeout_keep_alive_handler(self) -> None:
        super().timeout_keep_alive_handler()
        self._close_soon()

    def _close_soon(self) -> None:
        """A client that does not say goodbye, as TLS wants it, holds up nothing."""
        if self.transport.is_closing():
            self.loop.call_later(_GOODBYE_SECONDS, self.transport.abort)

    def _set_deadline(self) -> None:
        self._deadline = self.loop.call_later(self.request_seconds, self.transport.abort)

    def _clear_deadline(self) -> None:
        if self._deadline is not None:
            self._deadline.cancel()
            self._deadline = None
