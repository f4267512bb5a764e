"""What the software answered when it was last recorded: kept in ``recorded_answers``, and compared with today's.

    RADLLM_RECORD_ANSWERS=1 RADLLM_LONG_TESTS=1 python -m pytest Testing/doors/test_recorded_answers.py

records anew. Do that only after a change that is meant to change answers, and read what git says has changed.
"""

from __future__ import annotations

import csv
import json
import math
import os
import platform
from collections.abc import Iterator
from importlib import metadata
from pathlib import Path
from typing import Any

import pytest

FOLDER = Path(__file__).parent / "recorded_answers"
RECORD = "RADLLM_RECORD_ANSWERS"
EXACT = 1e-12
"""Where the same processor and the same packages compute: nothing but the order of a sum may be rounded otherwise."""
PACKAGES = (
    "torch", "transformers", "tokenizers", "numpy", "scipy", "scikit-learn", "lightgbm", "peft", "simpleitk",
    "pyradiomics-bhklab",
)  # fmt: skip
FLAGS = {
    "sse4_2", "avx", "avx2", "fma", "avx512f", "avx512_vnni", "avx512_bf16", "avx512_fp16", "amx_tile", "amx_bf16",
    "asimd", "sve",
}  # fmt: skip
"""Those that choose kernels, among what Linux says that the processor can do."""
IN_TURN = ("lesion", "label")
"""Of a neighbour, and not compared elsewhere: which of several equally distant ones is named hangs on a bit."""
_SHOWN = 12


def made_with() -> dict[str, Any]:
    """The arithmetic that answers are made with: libraries choose their kernels by processor, and kernels sum apart."""
    cpu = _cpu()
    flags = FLAGS & set((cpu.get("flags") or cpu.get("Features") or "").split())
    names = ("vendor_id", "cpu family", "model")
    return {
        "machine": f"{platform.system()} {platform.machine()}",
        "cpu": " ".join(cpu[name] for name in names if name in cpu),
        "flags": sorted(flags),
        "threads": os.environ.get("OMP_NUM_THREADS", ""),
        "versions": {name: _version(name) for name in PACKAGES},
    }


def _cpu() -> dict[str, str]:
    """The first processor as Linux describes it; empty elsewhere."""
    file = Path("/proc/cpuinfo")
    lines = file.read_text(encoding="utf-8").split("\n\n")[0].splitlines() if file.is_file() else []
    pairs = (line.partition(":") for line in lines)
    return {name.strip(): value.strip() for name, _, value in pairs}


def _version(name: str) -> str:
    try:
        return metadata.version(name)
    except metadata.PackageNotFoundError:
        return ""


def same_arithmetic(part: str) -> bool:
    """Whether a part's answers were recorded with this very arithmetic, or are about to be."""
    return bool(os.environ.get(RECORD)) or _read(part)["made_with"] == made_with()


def check(part: str, answers: dict[str, Any], *, elsewhere: float) -> None:
    """Compare answers with the recorded ones: words exactly, numbers within `EXACT`. Records them if asked to.

    Args:
        elsewhere: how far numbers may be off, of 1 or of themselves, on another processor or with other packages.
    """
    answers = json.loads(json.dumps(answers))
    if os.environ.get(RECORD):
        _write(part, answers)
        return
    recorded, tolerance = _read(part)["answers"], EXACT
    if not same_arithmetic(part):
        recorded, answers, tolerance = without(recorded, *IN_TURN), without(answers, *IN_TURN), elsewhere
    found = list(differences(recorded, answers, tolerance))
    if found:
        more = [f"and {len(found) - _SHOWN} more"] if len(found) > _SHOWN else []
        sentence = f"{part}: {len(found)} answers differ from the recorded ones by more than {tolerance:g}"
        pytest.fail("\n".join([sentence, *found[:_SHOWN], *more]), pytrace=False)


def differences(recorded: Any, today: Any, tolerance: float, place: str = "") -> Iterator[str]:
    """One line for each leaf that differs, with its place; keys count in their order."""
    if isinstance(recorded, dict) and isinstance(today, dict):
        if list(recorded) != list(today):
            yield f"{place}: the keys were {list(recorded)} and are {list(today)}"
        for key in [key for key in recorded if key in today]:
            yield from differences(recorded[key], today[key], tolerance, f"{place}/{key}")
    elif isinstance(recorded, list) and isinstance(today, list):
        if len(recorded) != len(today):
            yield f"{place}: there were {len(recorded)} and are {len(today)}"
        for number, (one, other) in enumerate(zip(recorded, today, strict=False)):
            yield from differences(one, other, tolerance, f"{place}/{number}")
    elif not _same(recorded, today, tolerance):
        yield f"{place}: {recorded!r} was recorded, {today!r} is today's"


def _same(recorded: Any, today: Any, tolerance: float) -> bool:
    if type(recorded) is not type(today):
        return False
    if not isinstance(recorded, float) or recorded == today:
        return bool(recorded == today)
    if math.isnan(recorded) or math.isnan(today):
        return math.isnan(recorded) and math.isnan(today)
    return abs(recorded - today) <= tolerance * max(1, abs(recorded))


def table_of(file: Path) -> list[list[str | float]]:
    """The cells of a CSV file; those that are numbers as numbers."""
    with file.open(encoding="utf-8", newline="") as lines:
        return [[_cell(text) for text in row] for row in csv.reader(lines)]


def _cell(text: str) -> str | float:
    try:
        return float(text)
    except ValueError:
        return text


def without(answer: Any, *keys: str) -> Any:
    """The same without what has one of these keys, at any depth."""
    if isinstance(answer, dict):
        return {key: without(value, *keys) for key, value in answer.items() if key not in keys}
    return [without(one, *keys) for one in answer] if isinstance(answer, list) else answer


def _read(part: str) -> Any:
    return json.loads((FOLDER / f"{part}.json").read_text(encoding="utf-8"))


def _write(part: str, answers: dict[str, Any]) -> None:
    FOLDER.mkdir(exist_ok=True)
    content = _lines({"made_with": made_with(), "answers": answers})
    (FOLDER / f"{part}.json").write_text(f"{content}\n", encoding="utf-8")


def _lines(answer: Any) -> str:
    """JSON in which each leaf and each list of leaves has a line of its own: a change is easy to read."""
    inner = answer.values() if isinstance(answer, dict) else answer if isinstance(answer, list) else ()
    if not answer or (not isinstance(answer, dict) and not any(isinstance(one, dict | list) for one in inner)):
        return json.dumps(answer, ensure_ascii=False)
    if isinstance(answer, list):
        return "[\n" + ",\n".join(map(_lines, answer)) + "\n]"
    return "{\n" + ",\n".join(f"{json.dumps(key)}: {_lines(value)}" for key, value in answer.items()) + "\n}"
