#!/usr/bin/env python3
"""Everything a fresh clone needs: ``python3 develop.py demo`` and ``python3 develop.py test``.

Makes the virtual environment .venv beside this file, installs what the command needs with the versions of
constraints.txt, and runs it. Needs Python 3.11 or newer and a C compiler (for PyRadiomics), nothing else. Where there
is a Python 3.12 too, the Slicer module is also tested in .venv-slicer, with the packages of Slicer 5.12, and, where
RADLLM_LONG_TESTS is set, in .venv-slicer-5.10.
"""

from __future__ import annotations

import argparse
import contextlib
import hashlib
import os
import subprocess
import sys
import venv
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

ROOT = Path(__file__).resolve().parent
BIN_PYTHON = "Scripts/python.exe" if os.name == "nt" else "bin/python"
PYTHON = ROOT / ".venv" / BIN_PYTHON
SLICERS = {"5.12": "slicer", "5.10": "slicer-5.10"}
"""The versions of Slicer, and the ends of the names of their environments and of their lists of packages."""
ESSENTIAL = (
    "setup/test_module_from_nothing",
    "test_module",
    "test_module_choices",
    "test_module_clicks",
    "test_module_panel",
)
"""What is tested in the older Slicer as well."""
SAMPLES = ROOT / "Resources" / "SampleLesions"
DEMO_EXTRAS = "extraction"
"""The samples are no DICOM files, and reading needs no extra."""
TEST_EXTRAS = f"{DEMO_EXTRAS},dicom,training,server,batch,dev"
# Python itself compiles what is imported, a quarter of all the files.
PIP = ("-m", "pip", "install", "--quiet", "--disable-pip-version-check", "--no-compile")
# PyRadiomics is compiled here: a wheel in pip's cache may have been built for another numpy.
COMPILED = ("--no-cache-dir", "--no-binary", "pyradiomics-bhklab")

NO_TESTS = 5
"""What pytest exits with where it finds none."""


def main() -> int:
    """Run one of the two jobs."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("job", choices=("demo", "test"))
    parser.add_argument("arguments", nargs="*", help="for pytest, after --")
    given = parser.parse_args()
    if sys.version_info < (3, 11):
        print("develop.py: Python 3.11 or newer is needed: run it with python3.11.", file=sys.stderr)
        return 1
    # Compiled once and kept, as users have it: else each of the many processes compiles PyTorch anew, for seconds.
    os.environ.pop("PYTHONDONTWRITEBYTECODE", None)
    try:
        return demo() if given.job == "demo" else test(given.arguments)
    except subprocess.CalledProcessError as error:
        print(f"develop.py: this command failed: {' '.join(map(str, error.cmd))}", file=sys.stderr)
        return error.returncode or 1


def demo() -> int:
    """Classify the two sample lesions, which are synthetic, with the shipped model."""
    install(DEMO_EXTRAS)
    radllm("models", "pull")
    for name in ("oval", "spiculated"):
        print(f"\n=== The synthetic lesion '{name}' ===", flush=True)
        files = [str(SAMPLES / f"{name}.png"), str(SAMPLES / f"{name}_mask.png")]
        (ROOT / "out").mkdir(exist_ok=True)
        radllm("classify", *files, "--modality", "US", "--spacing", "0.08", "-o", str(ROOT / "out" / name))
    return 0


def test(arguments: list[str]) -> int:
    """Formatting, lint, types, imports, and the tests; with no arguments also the Slicer module in its own Pythons.

    Tests that take long skip unless RADLLM_LONG_TESTS is set, as .ci/run does.
    """
    versions = [] if arguments else list(SLICERS) if os.environ.get("RADLLM_LONG_TESTS") else ["5.12"]
    with ThreadPoolExecutor(1) as beside:
        slicers = beside.submit(lambda: {version: install_slicer(version) for version in versions})
        install(TEST_EXTRAS)
        python("-m", "ruff", "format", "--check", ".")
        python("-m", "ruff", "check", ".")
        python("-m", "mypy")
        lint_imports()
        statuses = [pytest(PYTHON, arguments)]
    statuses += [test_slicer(version, found) for version, found in slicers.result().items() if found]
    return next(filter(None, statuses), 0)


def test_slicer(version: str, interpreter: Path) -> int:
    """Test the Slicer module with a Slicer's packages; the exit status."""
    print(f"The Slicer module in Python 3.12, with the packages of Slicer {version} and without torch:", flush=True)
    folder = ROOT / "Testing" / "slicer"
    files = sorted(folder.rglob("test_module*.py"))
    if version != "5.12":
        files = [folder / f"{name}.py" for name in ESSENTIAL]
    given = {"RADLLM_BACKEND_PYTHON": str(PYTHON), "PYTHONPATH": str(ROOT)}
    return pytest(interpreter, [str(path) for path in files], **given)


def pytest(interpreter: Path, arguments: list[str], **environment: str) -> int:
    """Run tests; the exit status. What wants the machine to itself comes last, one test after the other."""
    # Files, not tests, are shared out: what a file's tests have in common is made once.
    beside: list[str | Path] = [interpreter, "-m", "pytest", "-n", "auto", "--dist", "loadfile", *arguments]
    runs = [beside]
    if os.environ.get("RADLLM_LONG_TESTS"):
        runs = [[*beside, "-m", "not alone"], [interpreter, "-m", "pytest", "-m", "alone", *arguments]]
    environment = {**os.environ, **environment}
    codes = [subprocess.run(command, cwd=ROOT, env=environment).returncode for command in runs]
    return max((code for code in codes if code != NO_TESTS), default=NO_TESTS)


def install(extras: str) -> None:
    """The virtual environment with this package in it; a second call with nothing changed does nothing."""
    wanted = stamp(f"{extras} {sys.version_info[:3]}", "pyproject.toml", "constraints.txt")
    if is_installed(PYTHON, wanted):
        return
    if not PYTHON.is_file():
        venv.create(ROOT / ".venv", with_pip=True)
    pip = [*PIP, "-c", "constraints.txt"]
    print("Installing the packages (a few minutes, once) ...", flush=True)
    python(*pip, *COMPILED, "pyradiomics-bhklab", "numpy")
    python(*pip, "-e", f".[{extras}]")
    stamp_file(PYTHON).write_text(wanted)


def install_slicer(version: str) -> Path | None:
    """The virtual environment that is like a Slicer's Python; None, with a sentence, where there is no such Python.

    This package is not installed there: it is found by its path, as in Slicer.
    """
    environment, packages = ROOT / f".venv-{SLICERS[version]}", f"constraints-{SLICERS[version]}.txt"
    interpreter, wanted = environment / BIN_PYTHON, stamp("slicer", packages)
    if is_installed(interpreter, wanted):
        return interpreter
    found = find_python_312()
    if not found:
        print(f"There is no Python 3.12 (python3.12, pyenv, uv): the module was not tested as in Slicer {version}.")
        return None
    print(f"Installing the packages of Slicer {version} (a minute, once) ...", flush=True)
    subprocess.run([found, "-m", "venv", "--clear", environment], check=True)
    # The list is complete: what packages ask for besides, Slicer has not.
    subprocess.run([interpreter, *PIP, *COMPILED, "--no-deps", "-r", packages], cwd=ROOT, check=True)
    stamp_file(interpreter).write_text(wanted)
    return interpreter


def find_python_312() -> str:
    """The path of a Python 3.12 that can make virtual environments; empty where there is none."""
    show = ("-c", "import ensurepip, sys; print(sys.executable)")
    environment = {**os.environ, "PYENV_VERSION": "3.12"}  # pyenv's python3.12 wants to be told
    for command in (("python3.12", *show), ("py", "-3.12", *show), ("uv", "python", "find", "3.12")):
        with contextlib.suppress(FileNotFoundError):
            found = subprocess.run(command, env=environment, capture_output=True, text=True)
            if found.returncode == 0:
                return found.stdout.strip()
    return ""


def is_installed(interpreter: Path, wanted: str) -> bool:
    """Whether all that is wanted was installed for this interpreter before."""
    stamped = stamp_file(interpreter)
    return interpreter.is_file() and stamped.is_file() and stamped.read_text() == wanted


def stamp_file(interpreter: Path) -> Path:
    return interpreter.parents[1] / "radllm-installed.txt"


def stamp(what: str, *files: str) -> str:
    """Changes with everything that an installation depends on."""
    content = "".join((ROOT / name).read_text() for name in files)
    return f"{what} {hashlib.sha256(content.encode()).hexdigest()}\n"


def lint_imports() -> None:
    """Which file may import which; the Slicer module's library is found by its path, as in Slicer."""
    environment = {**os.environ, "PYTHONPATH": str(ROOT / "RadiomicsLLM")}
    subprocess.run([PYTHON.with_name("lint-imports"), "--no-cache"], cwd=ROOT, env=environment, check=True)


def radllm(*arguments: str) -> None:
    """The command line of the package in .venv."""
    python("-m", "radllm_backend", *arguments)


def python(*arguments: str) -> None:
    """The Python of .venv; CalledProcessError where it fails."""
    subprocess.run([PYTHON, *arguments], cwd=ROOT, check=True)


if __name__ == "__main__":
    sys.exit(main())
