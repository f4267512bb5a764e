"""A server of one's own: started, watched and stopped by the program that uses it (Slicer, a test, a benchmark)."""

from __future__ import annotations

import contextlib
import os
import signal
import subprocess
import sys
import tempfile
import threading
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import IO, Any

from pydantic import ValidationError

from radllm_backend.errors import RadllmError
from radllm_backend.programs import without_window
from radllm_backend.server.client import Client
from radllm_backend.server.protocol import Ready


class LocalServer:
    """A ``radllm serve`` process, which ends with the program that started it, however that ends."""

    def __init__(self, process: subprocess.Popen[str], ready: Ready, log: IO[str]) -> None:
        """`LocalServer.start` is the usual way."""
        self.process, self.ready = process, ready
        self._log = log

    @classmethod
    def start(
        cls,
        arguments: Sequence[str],
        *,
        python: str | Path = sys.executable,
        program: Sequence[str] = ("-m", "radllm_backend"),
        environment: Mapping[str, str] | None = None,
        timeout: float = 300,
        started: Callable[[subprocess.Popen[str]], None] = lambda process: None,
    ) -> LocalServer:
        """Start a server, and return once it can answer.

        Args:
            arguments: of ``radllm serve``, such as ``["--model", "breast-us"]``.
            python: with radllm installed, or the launcher of one; it need not be this one.
            program: what it is told, so that it runs ``radllm``.
            environment: of the process; None for this one's.
            timeout: seconds until it has to be ready.
            started: called with the process before it is ready, so that another thread can `end` it.

        Raises:
            RadllmError: it did not start, with its own sentence where it said one.
        """
        log = tempfile.TemporaryFile("w+", encoding="utf-8", errors="replace")  # noqa: SIM115 - closed by stop
        command = [str(python), *program, "serve", "--parent-pid", str(os.getpid()), *arguments]
        try:
            process = subprocess.Popen(
                command,
                stdin=subprocess.DEVNULL,
                stdout=subprocess.PIPE,
                stderr=log,
                text=True,
                env=environment,
                start_new_session=sys.platform != "win32",  # at the head of a group of its own
                **without_window(),
            )
        except OSError as error:
            raise RadllmError(f"The server cannot be started with {python} ({error.strerror}).") from error
        started(process)
        line = _first_line(process, timeout)
        try:
            return cls(process, Ready.model_validate_json(line), log)
        except ValidationError as error:
            end(process)
            process.wait()
            raise RadllmError(f"The server did not start: {_last_words(log)}") from error

    def client(self, **options: Any) -> Client:
        """A client of this server; the options are those of `Client`."""
        return Client(self.ready.url, **{"token_file": self.ready.token_file, **options})

    def is_running(self) -> bool:
        return self.process.poll() is None

    def log(self) -> str:
        """What the server wrote on standard error so far."""
        self._log.seek(0)
        return self._log.read()

    def stop(self, timeout: float = 130) -> int:
        """Let it answer what it accepted, and end; its exit status."""
        _ask_to_end(self.process)
        try:
            return self.process.wait(timeout)
        except subprocess.TimeoutExpired:
            end(self.process)
            return self.process.wait()
        finally:
            if self.process.stdout:
                self.process.stdout.close()

    def __enter__(self) -> LocalServer:
        return self

    def __exit__(self, *_: object) -> None:
        self.stop()
        self._log.close()


def end(process: subprocess.Popen[str]) -> None:
    """End a server at once, with what its launcher started; what it was doing is lost."""
    if sys.platform == "win32":
        _task_kill(process)
        return
    with contextlib.suppress(ProcessLookupError, PermissionError):
        os.killpg(process.pid, signal.SIGKILL)


def _ask_to_end(process: subprocess.Popen[str]) -> None:
    """Windows knows no such request that a launcher would pass on."""
    if sys.platform == "win32":
        _task_kill(process)
        return
    with contextlib.suppress(ProcessLookupError, PermissionError):
        os.killpg(process.pid, signal.SIGTERM)


def _task_kill(process: subprocess.Popen[str]) -> None:
    command = ["taskkill", "/F", "/T", "/PID", str(process.pid)]
    subprocess.run(command, stdin=subprocess.DEVNULL, capture_output=True, check=False, **without_window())


def _first_line(process: subprocess.Popen[str], timeout: float) -> str:
    """What the process prints first; empty where it ends, or is ended for taking too long, without a word."""
    assert process.stdout is not None
    watchdog = threading.Timer(timeout, end, (process,))
    watchdog.start()
    try:
        return process.stdout.readline()
    finally:
        watchdog.cancel()


def _last_words(log: IO[str]) -> str:
    log.seek(0)
    lines = [line.strip() for line in log.read().splitlines() if line.strip()]
    return lines[-1].removeprefix("radllm: ")[:500] if lines else "it said nothing."
