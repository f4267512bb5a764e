"""The radllm command in this process: quick, and with everything it printed."""

from __future__ import annotations

import contextlib
import io
import sys
from dataclasses import dataclass
from unittest import mock

from radllm_backend.cli.main import main


@dataclass(frozen=True)
class Finished:
    """How a command ended."""

    code: int
    output: str
    error: str


def radllm(*arguments: object) -> Finished:
    """Run ``radllm`` with these arguments, exactly as the command does."""
    output, error = io.StringIO(), io.StringIO()
    with (
        mock.patch.object(sys, "argv", ["radllm", *map(str, arguments)]),
        contextlib.redirect_stdout(output),
        contextlib.redirect_stderr(error),
    ):
        try:
            main()
        except SystemExit as stop:
            return Finished(int(stop.code or 0), output.getvalue(), error.getvalue())
    raise AssertionError("radllm ended without an exit code")


def succeed(*arguments: object) -> Finished:
    """Run ``radllm``; it must succeed."""
    finished = radllm(*arguments)
    assert finished.code == 0, finished.error
    return finished
