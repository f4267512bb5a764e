"""Who may ask the server, and how much: the token, the Host and Origin of a request, the size of its body.

A page in the user's browser can send requests to the loopback address, and by DNS rebinding even read the answers. It
cannot choose its Origin or its Host header: both are checked, before the token and whatever the token.
"""

from __future__ import annotations

import hmac
import re
from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from http import HTTPStatus

from starlette.exceptions import HTTPException
from starlette.responses import Response
from starlette.types import ASGIApp, Message, Receive, Scope, Send

from radllm_backend.server import protocol

LOOPBACK_NAMES = ("localhost", "127.0.0.1", "[::1]")
OPEN_PATHS = ("/health",)
"""What answers without the token: that the process is alive, and nothing else."""
_HOST = re.compile(rb"(\[[0-9a-fA-F:.]+\]|[A-Za-z0-9.-]+)(:[0-9]{1,5})?")


class RefusedRequest(HTTPException):
    """A request that gets no answer but a `protocol.Problem`."""

    def __init__(self, status: int, code: protocol.Code, message: str, headers: dict[str, str] | None = None) -> None:
        super().__init__(status, message, headers)
        self.code = code

    def response(self) -> Response:
        return problem_response(self.status_code, self.code, self.detail, self.headers)


def problem_response(
    status: int, code: protocol.Code, message: str, headers: Mapping[str, str] | None = None
) -> Response:
    """A problem as JSON."""
    content = protocol.Problem(code=code, message=message).model_dump_json()
    return Response(content, status, headers, media_type="application/json")


@dataclass(frozen=True)
class Trust:
    """What a request has to show."""

    token: str
    hosts: frozenset[str]
    """Names, in lower case, by which the server may be called."""

    @classmethod
    def of(cls, token: str, more_hosts: Iterable[str] = ()) -> Trust:
        """The loopback names and others."""
        return cls(token, frozenset({*LOOPBACK_NAMES, *(host.lower() for host in more_hosts)}))

    def refusal(self, path: str, headers: list[tuple[bytes, bytes]]) -> RefusedRequest | None:
        """Why a request is refused; None where it may pass."""
        if not self._knows_host([value for name, value in headers if name == b"host"]):
            return RefusedRequest(403, "wrong-host", "This server does not answer to that Host header.")
        if any(name == b"origin" for name, _ in headers):
            return RefusedRequest(403, "web-page", "This server does not answer to web pages.")
        if path in OPEN_PATHS or self._is_token([value for name, value in headers if name == b"authorization"]):
            return None
        return RefusedRequest(
            401,
            "bad-token",
            "The token is missing or wrong: use the one of this start of the server.",
            {"WWW-Authenticate": "Bearer"},
        )

    def _knows_host(self, values: list[bytes]) -> bool:
        found = _HOST.fullmatch(values[0]) if len(values) == 1 else None
        return found is not None and found[1].decode().lower() in self.hosts

    def _is_token(self, values: list[bytes]) -> bool:
        scheme, _, given = (values[0] if len(values) == 1 else b"").partition(b" ")
        # Always compared, and in constant time: how long a refusal takes says nothing about the token.
        right = hmac.compare_digest(given.strip(), self.token.encode())
        return right and scheme.lower() == b"bearer"


class Gate:
    """The application behind its checks: nothing of a refused request is read or parsed."""

    def __init__(self, app: ASGIApp, trust: Trust) -> None:
        self._app, self._trust = app, trust

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        if scope["type"] != "http":
            await self._app(scope, receive, send)
            return
        refusal = self._trust.refusal(scope["path"], scope["headers"])
        if refusal is None and scope["method"] not in ("GET", "HEAD"):
            try:
                receive = await _whole_body(scope, receive)
            except RefusedRequest as too_large:
                refusal = too_large
        if refusal is None:
            await self._app(scope, receive, send)
        else:
            await refusal.response()(scope, receive, send)


async def _whole_body(scope: Scope, receive: Receive) -> Receive:
    """Read a body of bounded size; what is returned gives it out once, and then whatever comes after it."""
    declared = [value for name, value in scope["headers"] if name == b"content-length"]
    if declared and int(declared[0]) > protocol.MOST_BYTES:
        raise _too_large()
    body, more = bytearray(), True
    while more:
        message = await receive()
        if message["type"] == "http.disconnect":
            return _replaying([message], receive)
        body += message.get("body", b"")
        more = message.get("more_body", False)
        if len(body) > protocol.MOST_BYTES:
            raise _too_large()
    return _replaying([{"type": "http.request", "body": bytes(body), "more_body": False}], receive)


def _replaying(messages: list[Message], receive: Receive) -> Receive:
    async def replay() -> Message:
        return messages.pop() if messages else await receive()

    return replay


def _too_large() -> RefusedRequest:
    limit = protocol.MOST_BYTES // 2**20
    # Closing the connection saves reading the rest.
    headers = {"Connection": "close"}
    return RefusedRequest(
        413, "too-large", f"The request is larger than {limit} MB: send fewer lesions at a time.", headers
    )


def http_problem(error: HTTPException) -> Response:
    """The answer to what Starlette itself refuses: an unknown path or a wrong method."""
    if isinstance(error, RefusedRequest):
        return error.response()
    code: protocol.Code = "malformed"
    if error.status_code == HTTPStatus.NOT_FOUND:
        code = "not-found"
    elif error.status_code == HTTPStatus.METHOD_NOT_ALLOWED:
        code = "wrong-method"
    sentence = f"The server cannot answer this ({HTTPStatus(error.status_code).phrase}): see /openapi.json."
    return problem_response(error.status_code, code, sentence, error.headers)
