"""How a client reaches a server: loopback, TLS or a Unix socket, with the standard library alone.

No proxy, no redirect and no netrc file is ever followed: token and features go to the named server or nowhere.
"""

from __future__ import annotations

import contextlib
import http.client
import socket
import ssl
from dataclasses import dataclass
from pathlib import Path
from urllib.parse import urlsplit

from radllm_backend.errors import RadllmError

_CONNECT_SECONDS = 10
_LOCAL = ("localhost", "127.0.0.1", "::1")


@dataclass(frozen=True)
class Address:
    """Where a server listens."""

    text: str
    scheme: str
    host: str
    port: int | None
    path: str = ""

    @classmethod
    def parse(cls, url: str) -> Address:
        """Of ``http://HOST:PORT``, ``https://HOST:PORT`` or ``unix:PATH``; RadllmError for anything else."""
        if url.startswith("unix:"):
            return cls(url, "unix", "localhost", None, url.removeprefix("unix:"))
        with contextlib.suppress(ValueError):
            parts = urlsplit(url)
            plain = not (parts.username or parts.query or parts.fragment or parts.path.strip("/"))
            if parts.scheme in ("http", "https") and parts.hostname and plain:
                return cls(url, parts.scheme, parts.hostname, parts.port)
        raise RadllmError(
            f"'{url[:80]}' is no server's address: give http://127.0.0.1:PORT, https://HOST:PORT or unix:PATH."
        )

    @property
    def is_private(self) -> bool:
        """Whether nobody else can listen in: on this machine, or encrypted."""
        return self.scheme != "http" or self.host in _LOCAL

    def tls(self, certificate: str | Path | None) -> ssl.SSLContext | None:
        """How a server is known by its certificate; None without TLS. RadllmError where the file holds none."""
        if self.scheme != "https":
            return None
        try:
            return ssl.create_default_context(cafile=certificate)
        except OSError as error:
            raise RadllmError(f"{certificate} holds no certificate in PEM form: give the server's.") from error

    def connection(self, tls: ssl.SSLContext | None) -> http.client.HTTPConnection:
        """A connection that is not made yet."""
        if self.scheme == "unix":
            return _UnixConnection(self.path, _CONNECT_SECONDS)
        if self.scheme == "https":
            return http.client.HTTPSConnection(self.host, self.port, timeout=_CONNECT_SECONDS, context=tls)
        return http.client.HTTPConnection(self.host, self.port, timeout=_CONNECT_SECONDS)

    def connect(self, connection: http.client.HTTPConnection, timeout: float) -> None:
        """Make a connection, unless it is made already.

        Args:
            timeout: seconds that an answer may take.
        """
        is_made = connection.sock is not None
        if is_made:
            return
        connection.connect()
        connection.sock.settimeout(timeout)
        if self.scheme != "unix":
            connection.sock.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)


class _UnixConnection(http.client.HTTPConnection):
    """HTTP over a Unix socket."""

    def __init__(self, path: str, timeout: float) -> None:
        super().__init__("localhost", timeout=timeout)
        self._path = path

    def connect(self) -> None:
        if not hasattr(socket, "AF_UNIX"):
            raise OSError("no Unix sockets on this system")
        self.sock = socket.socket(socket.AF_UNIX, socket.SOCK_STREAM)
        self.sock.settimeout(self.timeout)
        self.sock.connect(self._path)
