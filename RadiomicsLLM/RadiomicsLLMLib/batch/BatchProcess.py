"""``radllm batch`` in a process of its own."""

from __future__ import annotations

import json
import os
import subprocess
import tempfile
from collections.abc import Sequence
from importlib.util import find_spec
from pathlib import Path
from typing import Any

from slicer.i18n import tr as _

from ..backend.BackendPython import BackendPython, programCode, programVariables
from ..panel.ProcessGroup import asSentence, killGroup, reasonOf, startGroup

_PROGRAM = """
import _thread, os, signal, threading
signal.signal(signal.SIGINT, signal.default_int_handler)

def watch():
    os.read(0, 1)
    _thread.interrupt_main()

threading.Thread(target=watch, daemon=True).start()
from radllm_backend.cli.main import main
main()
"""
"""Its standard input ends when Slicer closes it, or is gone, however: then it stops as after Ctrl+C, on any system.
A process of a Slicer that a shell started in the background would ignore Ctrl+C, did it not ask for it.
The paths that it is told reach its workers too.
"""
_SECONDS_TO_STOP = 5


class BatchProcess:
    """Runs the command in the backend's Python, and gives what it tells; nothing here waits, but `close`.

    It writes into a file, and not into a pipe: reading one would need a thread, and full, it would hold up the batch.
    """

    def __init__(self, python: BackendPython, arguments: Sequence[str]) -> None:
        """
        Args:
            arguments: of ``radllm batch``, but ``--json-lines``.

        Raises:
            RadllmError: the Python cannot be started.
        """
        from radllm_backend import RadllmError

        self._folder = tempfile.TemporaryDirectory(prefix="RadiomicsLLM-", ignore_cleanup_errors=True)
        told, self._said = (Path(self._folder.name) / name for name in ("told.txt", "said.txt"))
        program = programCode(python, _PROGRAM, _borrowed(python))
        command = [str(python.python), *program, "batch", "--json-lines", *arguments]
        try:
            with told.open("wb") as out, self._said.open("wb") as err:
                self._process = startGroup(
                    command, programVariables(python), stdin=subprocess.PIPE, stdout=out, stderr=err
                )
        except OSError as error:
            self._folder.cleanup()
            sentence = _("{python} cannot be started ({reason}): set up the backend again.")
            raise RadllmError(sentence.format(python=python.python, reason=error.strerror)) from error
        self._told, self._begun = told.open("rb"), b""

    @property
    def processId(self) -> int:
        return self._process.pid

    def isRunning(self) -> bool:
        return self._process.poll() is None

    def events(self, most: int) -> list[dict[str, Any]]:
        """What it has told since it was last asked, no more than so many."""
        events: list[dict[str, Any]] = []
        while len(events) < most and (line := self._line()):
            try:
                event = json.loads(line)
            except ValueError:  # a library of the backend's has spoken
                continue
            if isinstance(event, dict) and "event" in event:
                events.append(event)
        return events

    def cancel(self) -> None:
        """Let it keep what is done, and end."""
        if self._process.stdin:
            self._process.stdin.close()

    def kill(self) -> None:
        """End it and its workers at once; what is in the file stays sound."""
        killGroup(self._process)

    def close(self) -> None:
        """End it, within seconds, and forget what it wrote."""
        self.cancel()
        try:
            self._process.wait(_SECONDS_TO_STOP)
        except subprocess.TimeoutExpired:
            self.kill()
            self._process.wait()
        self._told.close()
        self._folder.cleanup()

    def problem(self) -> str:
        """Why it failed, in one sentence; empty where it did not, or runs."""
        status = self._process.poll()
        if not status:
            return ""
        with self._said.open("rb") as file:
            file.seek(max(0, os.fstat(file.fileno()).st_size - 20_000))
            lines = file.read().decode("utf-8", "replace").splitlines()
        return asSentence(reasonOf(lines, status))

    def _line(self) -> bytes:
        """The next whole line; what is written of another one waits for its end."""
        self._begun += self._told.readline()
        if not self._begun.endswith(b"\n"):
            return b""
        line, self._begun = self._begun, b""
        return line


def _borrowed(python: BackendPython) -> list[str]:
    """Where Slicer's PyRadiomics lies, for Slicer's own Python, into which nothing compiles one."""
    found = find_spec("radiomics") if python.isSlicers else None
    return [str(Path(found.origin).parents[1])] if found and found.origin else []
