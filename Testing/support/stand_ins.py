"""What stands in for a server that cannot be had."""

from __future__ import annotations

from http.server import ThreadingHTTPServer
from typing import Any


class StandInServer(ThreadingHTTPServer):
    """One that says nothing of clients that hang up: its words would be another test's."""

    daemon_threads = True

    def handle_error(self, request: Any, client_address: Any) -> None:
        pass
