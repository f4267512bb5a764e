"""The two files of a running server, its token and its Unix socket: for the user only, and never left over."""

from __future__ import annotations

import contextlib
import getpass
import os
import re
import secrets
import socket
import stat
import tempfile
from collections.abc import Iterator
from pathlib import Path

import psutil

from radllm_backend.errors import RadllmError

TOKEN_VARIABLE = "RADLLM_TOKEN"
"""Environment variable with a token of the user's own choosing; then there is no token file."""
_TOKEN = re.compile(r"[A-Za-z0-9_-]{32,200}")
_OURS = re.compile(r"server-(\d+)\.token")


def token_of_environment() -> str | None:
    """The token in the environment; None where there is none.

    Raises:
        RadllmError: it is too short to be safe, or has characters that a header cannot carry.
    """
    token = os.environ.get(TOKEN_VARIABLE)
    if token is None:
        return None
    if not _TOKEN.fullmatch(token):
        raise RadllmError(
            f"The token in {TOKEN_VARIABLE} is not safe: use 32 or more letters and digits, such as "
            "those of `openssl rand -hex 32`."
        )
    return token


def new_token() -> str:
    """256 random bits."""
    return secrets.token_urlsafe(32)


def default_token_file() -> Path:
    """A name of this process's own in the user's runtime folder; what dead servers left there is removed.

    Raises:
        RadllmError: the folder cannot be made, or belongs to somebody else.
    """
    runtime = os.environ.get("XDG_RUNTIME_DIR")  # on Linux; elsewhere the temporary folder is the user's own
    folder = Path(runtime) / "radllm" if runtime else Path(tempfile.gettempdir()) / f"radllm-{getpass.getuser()}"
    try:
        folder.mkdir(mode=0o700, exist_ok=True)
        status = folder.lstat()
    except OSError as error:
        raise RadllmError(f"{folder} cannot be made ({error.strerror}): give --token-file.") from error
    if not stat.S_ISDIR(status.st_mode) or (hasattr(os, "getuid") and status.st_uid != os.getuid()):
        raise RadllmError(f"{folder} belongs to another user: give --token-file.")
    for path in folder.glob("server-*.token"):
        found = _OURS.fullmatch(path.name)
        if found and not psutil.pid_exists(int(found[1])):
            path.unlink(missing_ok=True)
    return folder / f"server-{os.getpid()}.token"


@contextlib.contextmanager
def token_file(path: Path, token: str) -> Iterator[None]:
    """The token in a file that only the user can read, while the server runs.

    Raises:
        RadllmError: the file is something else than an old token, or cannot be written.
    """
    try:
        _remove_old_token(path)
        # Made with its mode, and only if it is new: nobody can have opened it before.
        descriptor = os.open(path, os.O_CREAT | os.O_EXCL | os.O_WRONLY, 0o600)
        with os.fdopen(descriptor, "w") as file:
            file.write(token + "\n")
    except OSError as error:
        raise RadllmError(
            f"The token cannot be written to {path} ({error.strerror}): give another --token-file."
        ) from error
    try:
        yield
    finally:
        with contextlib.suppress(OSError):
            if path.read_text() == token + "\n":  # not that of a server started since
                path.unlink()


def _remove_old_token(path: Path) -> None:
    if not path.is_symlink() and not path.exists():
        return
    is_token = not path.is_symlink() and path.is_file() and path.stat().st_size < 300
    if not is_token or not _TOKEN.fullmatch(path.read_text(errors="replace").strip()):
        raise RadllmError(f"{path} exists and holds no token: give another --token-file, or remove it.")
    path.unlink()


def loopback_socket(host: str, port: int) -> socket.socket:
    """A socket bound to a host and a port (0: a free one), not listening yet.

    Raises:
        RadllmError: it cannot be had.
    """
    try:
        family, _, _, _, address = socket.getaddrinfo(host, port, type=socket.SOCK_STREAM)[0]
        # asyncio switches Nagle's delay (40 ms an answer) off, but only for a socket that says that it is TCP.
        bound = socket.socket(family, socket.SOCK_STREAM, socket.IPPROTO_TCP)
        if os.name == "posix":  # on Windows it would let two servers share the port
            bound.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        bound.bind(address)
    except OSError as error:
        raise RadllmError(
            f"The server cannot listen on {host} port {port} ({error.strerror}): choose another port or host."
        ) from error
    return bound


@contextlib.contextmanager
def unix_socket(path: Path) -> Iterator[socket.socket]:
    """A Unix socket that only the user can connect to, gone afterwards; one that a dead server left is replaced.

    Raises:
        RadllmError: there are none here, a server listens there already, or the path is something else or too long.
    """
    if not hasattr(socket, "AF_UNIX"):
        raise RadllmError("There are no Unix sockets for Python on this system: use a loopback port.")
    _remove_old_socket(path)
    bound = socket.socket(socket.AF_UNIX, socket.SOCK_STREAM)
    mask = os.umask(0o177)  # bind makes the file, and has no other way to say its mode
    try:
        bound.bind(str(path))
        bound.listen()  # at once: one that does not listen would look like a dead server's
    except OSError as error:
        raise RadllmError(f"The server cannot listen on {path} ({error.strerror or error}): give another.") from error
    finally:
        os.umask(mask)
    ours = path.stat().st_ino
    try:
        yield bound
    finally:
        bound.close()
        with contextlib.suppress(OSError):
            if path.stat().st_ino == ours:
                path.unlink()


def _remove_old_socket(path: Path) -> None:
    if not path.is_symlink() and not path.exists():
        return
    if path.is_symlink() or not stat.S_ISSOCK(path.stat().st_mode):
        raise RadllmError(f"{path} exists and is no socket: give another path, or remove it.")
    with socket.socket(socket.AF_UNIX, socket.SOCK_STREAM) as probe:
        probe.settimeout(2)
        try:
            probe.connect(str(path))
        except (ConnectionRefusedError, FileNotFoundError):
            path.unlink(missing_ok=True)
            return
        except OSError:
            pass
    raise RadllmError(f"A server listens on {path} already: stop it, or give another path.")
