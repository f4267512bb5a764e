"""What the commands share: checks before the work, and its progress on standard error."""

from __future__ import annotations

import shlex
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import typer

from radllm_backend.errors import RadllmError
from radllm_backend.language import distributed
from radllm_backend.records import Progress, say_nothing


def check_output_folder(folder: Path) -> None:
    """Before the work rather than after it."""
    if folder.exists() and not folder.is_dir():
        raise RadllmError(f"The output {folder} is a file: give a folder.")
    if not folder.absolute().parent.is_dir():
        raise RadllmError(f"The folder {folder.absolute().parent} does not exist: make it or give another output.")


def check_output_file(file: Path, *sources: Path | None) -> None:
    """Before the work rather than after it.

    Args:
        sources: what the work reads, which must not be written over.
    """
    if file.is_dir():
        raise RadllmError(f"The output {file} is a folder: give a file name.")
    if any(source and source.exists() and file.exists() and file.samefile(source) for source in sources):
        raise RadllmError(f"The output {file} is what is to be read: give another file name.")
    if not file.absolute().parent.is_dir():
        raise RadllmError(f"The folder {file.absolute().parent} does not exist: make it or give another output.")


@contextmanager
def describing(*, in_logs: bool = True) -> Iterator[Progress]:
    """What is happening now, on standard error: a progress bar on a terminal, a line a step in a log.

    Of several processes that share the work, the main one tells.

    Args:
        in_logs: whether there is anything to say where standard error is no terminal, as of work that takes hours.
    """
    from radllm_backend.cli.console import progress_bar

    if not distributed.is_main():
        yield say_nothing
        return
    if not sys.stderr.isatty():
        yield _log_each_step() if in_logs else say_nothing
        return
    with progress_bar() as bar:
        task = bar.add_task("Starting", total=1.0)
        yield lambda what, done: bar.update(task, description=what, completed=done)


def _log_each_step() -> Progress:
    seen: set[str] = set()

    def log(what: str, done: float) -> None:
        epoch = what.split(", loss")[0]
        if epoch not in seen:
            seen.add(epoch)
            typer.echo(f"{done:4.0%} {what}", err=True)

    return log


def command_line() -> str:
    """The command as it was given, with files and folders by their last names only."""
    words = [Path(word).name if Path(word).is_absolute() or "/" in word or "\\" in word else word for word in sys.argv]
    return shlex.join(["radllm", *words[1:]])
