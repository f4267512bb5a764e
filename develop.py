#!/usr/bin/env python3
"""Everything a fresh clone needs: ``python3 develop.py demo`` and ``python3 develop.py test``.

Makes the virtual environment .venv beside this file, installs what the command needs with the versions of
constraints.txt, and runs it. Needs Python 3.11 or newer and a C compiler (for PyRadiomics), nothing else.
"""

from __future__ import annotations

import argparse
import hashlib
import os
import subprocess
import sys
import venv
from pathlib import Path

ROOT = Path(__file__).resolve().parent
ENVIRONMENT = ROOT / ".venv"
PYTHON = ENVIRONMENT / ("Scripts/python.exe" if os.name == "nt" else "bin/python")
SAMPLES = ROOT / "Resources" / "SampleLesions"
DEMO_EXTRAS = "extraction,dicom,llm"
TEST_EXTRAS = f"{DEMO_EXTRAS},training,server,dev"


def main() -> int:
    """Run one of the two jobs."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("job", choices=("demo", "test"))
    parser.add_argument("arguments", nargs="*", help="for pytest, after --")
    given = parser.parse_args()
    if sys.version_info < (3, 11):
        print("develop.py: Python 3.11 or newer is needed: run it with python3.11.", file=sys.stderr)
        return 1
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
    """Formatting, lint, types, and the test suite."""
    install(TEST_EXTRAS)
    python("-m", "ruff", "format", "--check", ".")
    python("-m", "ruff", "check", ".")
    python("-m", "mypy")
    # Files, not tests, are shared out: what a file's tests have in common is made once.
    pytest = ["-m", "pytest", "-n", "auto", "--dist", "loadfile"]
    return subprocess.run([PYTHON, *pytest, *arguments], cwd=ROOT).returncode


def install(extras: str) -> None:
    """The virtual environment with this package in it; a second call with nothing changed does nothing."""
    wanted = stamp(extras)
    stamped = ENVIRONMENT / "radllm-installed.txt"
    if stamped.is_file() and stamped.read_text() == wanted:
        return
    if not PYTHON.is_file():
        venv.create(ENVIRONMENT, with_pip=True)
    pip = ["-m", "pip", "install", "--quiet", "--disable-pip-version-check", "-c", "constraints.txt"]
    print("Installing the packages (a few minutes, once) ...", flush=True)
    # PyRadiomics is compiled here: a wheel in pip's cache may have been built for another numpy.
    python(*pip, "--no-cache-dir", "--no-binary", "pyradiomics-bhklab", "pyradiomics-bhklab", "numpy")
    python(*pip, "-e", f".[{extras}]")
    stamped.write_text(wanted)


def stamp(extras: str) -> str:
    """Changes with everything that an installation depends on."""
    content = "".join((ROOT / name).read_text() for name in ("pyproject.toml", "constraints.txt"))
    return f"{extras} {sys.version_info[:3]} {hashlib.sha256(content.encode()).hexdigest()}\n"


def radllm(*arguments: str) -> None:
    """The command line of the package in .venv."""
    python("-m", "radllm_backend", *arguments)


def python(*arguments: str) -> None:
    """The Python of .venv; CalledProcessError where it fails."""
    subprocess.run([PYTHON, *arguments], cwd=ROOT, check=True)


if __name__ == "__main__":
    sys.exit(main())
