"""``radllm serve``: the process around the calls, from the bound socket to the last answer."""

from __future__ import annotations

import asyncio
import contextlib
import os
import signal
import socket
from collections.abc import AsyncIterator, Callable, Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path

import psutil
import uvicorn
from starlette.types import ASGIApp

from radllm_backend import __version__
from radllm_backend.errors import RadllmError
from radllm_backend.models.bundle import Bundle, read_bundle
from radllm_backend.models.model import Model
from radllm_backend.server.app import State, create_app
from radllm_backend.server.connections import IDLE_SECONDS, MOST_HEADER_BYTES, REQUEST_SECONDS, connection_options
from radllm_backend.server.files import (
    default_token_file,
    loopback_socket,
    new_token,
    token_file,
    token_of_environment,
    unix_socket,
)
from radllm_backend.server.journal import Journal, note, write_log_to
from radllm_backend.server.models import Build, ModelStore, weights_in_memory
from radllm_backend.server.protocol import PROTOCOL, Ready
from radllm_backend.server.queue import MicroBatches
from radllm_backend.server.trust import Trust

_GRACE_SECONDS = 120
"""How long accepted requests may still take once the server is told to stop."""
_PARENT_SECONDS = 0.5
_PATHS = {"/health", "/ready", "/version", "/models", "/metrics", "/openapi.json", "/predict", "/explain", "/embed"}


@dataclass(frozen=True)
class ServerOptions:
    """How to serve."""

    models: Sequence[str]
    """Names of shipped models, or folders of trained ones."""
    base: str | None = None
    """Where their base model lies, if not in the cache under the name in the card."""
    host: str = "127.0.0.1"
    port: int = 0
    """0: a free one."""
    uds: Path | None = None
    """A Unix socket instead of a host and a port."""
    allowed_hosts: Sequence[str] = ()
    """More names by which clients call the server."""
    tls_certificate: Path | None = None
    tls_key: Path | None = None
    allow_unencrypted: bool = False
    """Serve another than the loopback address without TLS."""
    token_file: Path | None = None
    parent_pid: int | None = None
    """The server stops when this process is gone."""
    memory: int | None = None
    """Bytes for all models together."""
    most_waiting: int = 4096
    most_together: int = 64
    remembered: int = 2048
    request_seconds: float = REQUEST_SECONDS
    log_values: bool = False
    vllm_url: str | None = None
    """Score through this vLLM server instead of here."""


def serve(options: ServerOptions, announce: Callable[[Ready], None]) -> None:
    """Serve until told to stop; accepted requests are answered first, and no file is left.

    Args:
        announce: told once, when every model is loaded and has scored.

    Raises:
        RadllmError: it cannot begin, or a model cannot be loaded.
    """
    _check(options)
    bundles = [read_bundle(model) for model in options.models]
    token = token_of_environment()
    with contextlib.ExitStack() as stack:
        bound = stack.enter_context(_socket(options))
        file = None
        if token is None:
            token, file = new_token(), options.token_file or default_token_file()
            stack.enter_context(token_file(file, token))
        write_log_to()
        ready = Ready(
            url=_url(options, bound),
            token_file=str(file.absolute()) if file else None,
            pid=os.getpid(),
            protocol=PROTOCOL,
            radllm=__version__,
            models=[bundle.card.name for bundle in bundles],
        )
        is_loading = _Process(options, bundles, token).run(bound, ready, announce)
    if is_loading:
        os._exit(0)  # minutes, maybe, and a thread that loads a model ends in no other way


def _check(options: ServerOptions) -> None:
    if not options.models:
        raise RadllmError("There is no model to serve: give one or more with --model.")
    if (options.tls_certificate is None) != (options.tls_key is None):
        raise RadllmError("TLS needs both files: give --tls-certificate and --tls-key.")
    if not (_is_local(options) or options.tls_key or options.allow_unencrypted):
        raise RadllmError(
            f"On {options.host} others in the network could read the token and the features: "
            "give --tls-certificate and --tls-key, or --allow-unencrypted if nobody else is in that network."
        )
    if options.parent_pid is not None and not psutil.pid_exists(options.parent_pid):
        raise RadllmError(f"There is no process {options.parent_pid}: give --parent-pid a running one.")


def _is_local(options: ServerOptions) -> bool:
    return options.uds is not None or options.host in ("localhost", "127.0.0.1", "::1")


@contextlib.contextmanager
def _socket(options: ServerOptions) -> Iterator[socket.socket]:
    if options.uds is not None:
        with unix_socket(options.uds) as bound:
            yield bound
    else:
        with loopback_socket(options.host, options.port) as bound:
            yield bound


def _url(options: ServerOptions, bound: socket.socket) -> str:
    if options.uds is not None:
        return f"unix:{options.uds.absolute()}"
    scheme = "https" if options.tls_key else "http"
    host = f"[{options.host}]" if ":" in options.host else options.host
    return f"{scheme}://{host}:{bound.getsockname()[1]}"


class _Process:
    """The models, the queue, uvicorn, and what watches over them."""

    def __init__(self, options: ServerOptions, bundles: Sequence[Bundle], token: str) -> None:
        self._options = options
        build, size = _engine(options)
        models = ModelStore(bundles, build, size, options.memory)
        journal = Journal(_PATHS, lambda: self._state.batches.waiting, lambda: len(models.loaded()))
        batches = MicroBatches(
            models.score,
            most_waiting=options.most_waiting,
            most_together=options.most_together,
            remembered=options.remembered,
            observe=journal.batch,
        )
        engine = "vllm" if options.vllm_url else "radllm"
        self._state = State(models, batches, journal, engine, options.log_values)
        self._trust = Trust.of(token, [*options.allowed_hosts, *_own_names(options)])
        self._failure: BaseException | None = None
        self._parent = psutil.Process(options.parent_pid) if options.parent_pid is not None else None

    def run(self, bound: socket.socket, ready: Ready, announce: Callable[[Ready], None]) -> bool:
        """Serve until told to stop; whether that was while a model was still loaded."""

        @contextlib.asynccontextmanager
        async def lifespan(app: object) -> AsyncIterator[None]:
            work = (self._state.batches.run(), self._begin(ready, announce), self._watch_parent())
            beside = [asyncio.create_task(one) for one in work]
            for task in beside:
                task.add_done_callback(self._stop_if_failed)
            yield
            for task in beside:
                task.cancel()
            self._state.batches.thread.shutdown(wait=False, cancel_futures=True)

        self._server = _Uvicorn(self._configuration(create_app(self._state, self._trust, lifespan)), self._state)
        with _signals_survived():
            self._server.run(sockets=[bound])
        if self._failure is not None:
            raise self._failure
        note("stopped")
        return not self._state.ready

    async def _begin(self, ready: Ready, announce: Callable[[Ready], None]) -> None:
        """Load and warm up the models, then say so."""
        loop = asyncio.get_running_loop()
        await loop.run_in_executor(self._state.batches.thread, self._state.models.warm_up)
        self._state.ready = True
        note("ready", models=self._state.models.names)
        announce(ready)

    def _stop_if_failed(self, task: asyncio.Task[None]) -> None:
        """A server without one of its parts would only seem to run."""
        if not task.cancelled() and task.exception() is not None:
            self._failure = task.exception()
            self._server.should_exit = True

    async def _watch_parent(self) -> None:
        while self._parent is not None:
            await asyncio.sleep(_PARENT_SECONDS)
            with contextlib.suppress(psutil.Error):
                if self._parent.is_running() and self._parent.status() != psutil.STATUS_ZOMBIE:
                    continue
            note("the parent process is gone")
            self._server.should_exit = True
            return

    def _configuration(self, app: ASGIApp) -> uvicorn.Config:
        options = self._options
        return uvicorn.Config(
            app,
            **connection_options(options.request_seconds),
            ws="none",
            lifespan="on",
            log_config=None,
            access_log=False,
            server_header=False,
            date_header=False,
            proxy_headers=False,
            h11_max_incomplete_event_size=MOST_HEADER_BYTES,
            timeout_keep_alive=IDLE_SECONDS,
            timeout_graceful_shutdown=_GRACE_SECONDS,
            ssl_certfile=options.tls_certificate,
            ssl_keyfile=str(options.tls_key) if options.tls_key else None,
        )


class _Uvicorn(uvicorn.Server):
    """Says that it is stopping before it stops, so that new requests on old connections are sent elsewhere."""

    def __init__(self, config: uvicorn.Config, state: State) -> None:
        super().__init__(config)
        self._state = state

    async def shutdown(self, sockets: list[socket.socket] | None = None) -> None:
        self._state.stopping = True
        note("stopping", waiting=self._state.batches.waiting)
        await super().shutdown(sockets)


@contextlib.contextmanager
def _signals_survived() -> Iterator[None]:
    """uvicorn raises the signal that stopped it once more at its end: that must not keep files from being removed."""
    before = {number: signal.signal(number, lambda *_: None) for number in (signal.SIGTERM, signal.SIGINT)}
    try:
        yield
    finally:
        for number, handler in before.items():
            signal.signal(number, handler)


def _engine(options: ServerOptions) -> tuple[Build, Callable[[Bundle], int]]:
    """How a model is made of its bundle, and the memory it takes here."""
    if options.vllm_url is None:
        return lambda bundle: Model(bundle, options.base), lambda bundle: weights_in_memory(bundle, options.base)
    from radllm_backend.models.vllm import VllmModel

    url = options.vllm_url
    return lambda bundle: VllmModel(bundle, url), lambda bundle: 0


def _own_names(options: ServerOptions) -> list[str]:
    """Names that a server outside the loopback address is called by."""
    if _is_local(options):
        return []
    return [f"[{options.host}]" if ":" in options.host else options.host, socket.gethostname(), socket.getfqdn()]
