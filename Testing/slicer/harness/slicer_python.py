"""A Python laid out as an installed Slicer lays it out: the interpreter works only through its launcher.

Checked against Slicer's ``SuperBuild/External_python.cmake``, ``CMake/SlicerBlockInstallPython.cmake`` and the launcher
settings of ``PythonSlicer``: the interpreter is ``bin/python-real``, the library ``lib/Python/lib/python3.12``, which
it finds by the PYTHONHOME that the launcher sets; there is pip and no ensurepip, so that no virtual environment can be
made. CTK's launcher is a process of its own that waits for the interpreter, and passes no signal on.
"""

from __future__ import annotations

import contextlib
import os
import shutil
import subprocess
from collections.abc import Iterable
from importlib import metadata
from pathlib import Path

import pip

_LAUNCHER = """#!/bin/sh
export PYTHONHOME="{root}/lib/Python"
export LD_LIBRARY_PATH="{root}/lib/Python/lib:$LD_LIBRARY_PATH"
"{root}/bin/python-real" "$@"
"""


def slicer_python(root: Path, python: str) -> Path:
    """Make one in a folder from another Python of this machine, with nothing but pip; its launcher.

    Args:
        python: an interpreter, not one of a virtual environment.
    """
    version = "'%d.%d' % sys.version_info[:2]"
    code = f"import sys, sysconfig; print(sys.base_prefix, sysconfig.get_path('stdlib'), {version})"
    told = subprocess.run([python, "-I", "-c", code], check=True, capture_output=True, text=True).stdout.split()
    prefix, library, version = Path(told[0]), Path(told[1]), told[2]
    home = root / "lib" / "Python" / "lib" / f"python{version}"
    (home / "site-packages").mkdir(parents=True)
    for path in library.iterdir():
        if path.name not in ("site-packages", "ensurepip", "__pycache__"):
            (home / path.name).symlink_to(path)
    own = Path(pip.__file__).parent
    shutil.copytree(own, home / "site-packages" / "pip", ignore=shutil.ignore_patterns("__pycache__"))
    for described in own.parent.glob("pip-*.dist-info"):
        shutil.copytree(described, home / "site-packages" / described.name)
    (root / "bin").mkdir()
    real = root / "bin" / "python-real"
    shutil.copy2(prefix / "bin" / f"python{version}", real)
    _forget(prefix, real)
    for shared in (prefix / "lib").glob("libpython3*.so*"):
        shutil.copy2(shared, root / "lib" / "Python" / "lib", follow_symlinks=True)
        _forget(prefix, root / "lib" / "Python" / "lib" / shared.name)
    launcher = root / "bin" / "PythonSlicer"
    launcher.write_text(_LAUNCHER.format(root=root), encoding="utf-8")
    launcher.chmod(0o755)
    return launcher


def _forget(prefix: Path, binary: Path) -> None:
    """Have a program not know where it was copied from: Slicer's Python is built in a folder long gone."""
    known, kept = str(prefix).encode(), prefix.name.encode()  # its end may also be the end of another text
    binary.write_bytes(binary.read_bytes().replace(known, b"/" + b"-" * (len(known) - len(kept) - 1) + kept))


def site_packages(launcher: Path) -> Path:
    """Where its packages lie."""
    (folder,) = launcher.parents[1].glob("lib/Python/lib/python3*/site-packages")
    return folder


def give_packages(launcher: Path, names: Iterable[str]) -> None:
    """Put packages of this Python there, and nothing that they ask for; as links, for some are large.

    Raises:
        PackageNotFoundError: this Python lacks one of them.
    """
    site = site_packages(launcher)
    for name in names:
        distribution = metadata.distribution(name)
        for file in distribution.files or ():
            source, target = Path(str(distribution.locate_file(file))), site / file
            if ".." in file.parts or file.suffix == ".pyc" or not source.is_file():  # programs lie elsewhere
                continue
            target.parent.mkdir(parents=True, exist_ok=True)
            with contextlib.suppress(FileExistsError):  # two packages may share a file of theirs
                _link(source, target)


def _link(source: Path, target: Path) -> None:
    try:
        os.link(source, target)
    except FileExistsError:
        raise
    except OSError:  # it lies on another disk
        shutil.copy2(source, target)
