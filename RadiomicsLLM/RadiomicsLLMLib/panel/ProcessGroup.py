"""Programs that are started beside Slicer, each with all that it starts itself."""

from __future__ import annotations

import contextlib
import os
import signal
import subprocess
import sys
from collections.abc import Mapping, Sequence
from typing import Any

from slicer.i18n import tr as _

_LONGEST_REASON = 300


def startGroup(command: Sequence[str], variables: Mapping[str, str], **pipes: Any) -> subprocess.Popen[Any]:
    """A program at the head of a group of its own, so that what it starts can be ended with it.

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
