"""Programs that are started beside Slicer, each with all that it starts itself."""

from __future__ import annotations

import contextlib
import os
import signal
import subprocess
import sys
import threading
from collections import deque
from collections.abc import Callable, Mapping, Sequence
from typing import Any

from slicer.i18n import tr as _

_LONGEST_REASON = 300
_MOST_LINES = 2000


def startGroup(command: Sequence[str], variables: Mapping[str, str], **pipes: Any) -> subprocess.Popen[Any]:
    """A program at the head of a group of its own, so that what it starts can be ended with it.

    On Windows it opens no console window, which a user could close, and the program with it.

    Args:
        pipes: ``stdin``, ``stdout`` and ``stderr`` as `subprocess.Popen` takes them, and how their text is read.
    """
    group: dict[str, Any] = {"start_new_session": True}
    if sys.platform == "win32":
        group = {"creationflags": subprocess.CREATE_NO_WINDOW}
    # What is written arrives line by line and as UTF-8, whatever the system's habits.
    environment = {**variables, "PYTHONUNBUFFERED": "1", "PYTHONIOENCODING": "utf-8"}
    return subprocess.Popen(list(command), env=environment, **pipes, **group)


def killGroup(process: subprocess.Popen[Any]) -> None:
    """End a program and all that it started, at once."""
    if sys.platform == "win32":
        subprocess.Popen(["taskkill", "/F", "/T", "/PID", str(process.pid)], creationflags=subprocess.CREATE_NO_WINDOW)
        return
    with contextlib.suppress(ProcessLookupError):
        os.killpg(process.pid, signal.SIGKILL)


class Programs:
    """Runs programs one after another on the thread that asks for them; another thread can end the present one."""

    def __init__(self, variables: Mapping[str, str]) -> None:
        """
        Args:
            variables: the programs' environment variables.
        """
        self._variables = variables
        self._lock = threading.Lock()
        self._process: subprocess.Popen[str] | None = None
        self.isCancelled = False

    def run(self, command: Sequence[str], heard: Callable[[str], None] = lambda line: None) -> str:
        """Run a program to its end; why it failed, or an empty text, also where it was cancelled.

        Args:
            heard: called with every line that it writes, on this thread.

        Raises:
            OSError: it cannot be started.
        """
        with self._lock:
            if self.isCancelled:
                return ""
            process = self._process = startGroup(
                command,
                self._variables,
                stdin=subprocess.DEVNULL,
                stdout=subprocess.PIPE,
                stderr=subprocess.STDOUT,
                encoding="utf-8",
                errors="replace",
            )
        lines: deque[str] = deque(maxlen=_MOST_LINES)
        assert process.stdout is not None
        with process.stdout as output:
            for line in output:
                lines.append(line.rstrip())
                heard(lines[-1])
        status = process.wait()
        with self._lock:
            self._process = None
            return reasonOf(list(lines), status) if status and not self.isCancelled else ""

    def cancel(self) -> None:
        """End what runs, with all that it started, and start nothing more."""
        with self._lock:
            self.isCancelled = True
            if self._process:
                killGroup(self._process)


def reasonOf(lines: Sequence[str], status: int) -> str:
    """Of what a program wrote, the line that tells most: its last error, or else whatever was written last."""
    lines = [line.strip() for line in lines if line.strip() and not line.startswith(("[notice]", "WARNING:"))]
    errors = [line for line in lines if line.startswith(("ERROR:", "radllm:"))]
    if not lines:
        return _("it ended with status {status} and said nothing").format(status=status)
    return (errors or lines)[-1].removeprefix("ERROR:").removeprefix("radllm:").strip()[:_LONGEST_REASON]


def asSentence(reason: str) -> str:
    """With a full stop, where it has none."""
    return reason if reason.endswith((".", "!", "?")) else f"{reason}."
