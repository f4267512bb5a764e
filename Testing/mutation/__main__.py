"""Small changes in the nine files whose numbers matter most, and which of them no test notices.

    python -m Testing.mutation [PATTERN ...]

With patterns of mutants' names (``'*selection*'``) only these are made and tested, and nothing is written: for whoever
writes a test for one of them. See README.md beside this file.
"""

from __future__ import annotations

import argparse
import fnmatch
import os
import shutil
import sys
from collections import Counter, defaultdict
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from pathlib import Path
from time import monotonic

# Before anything imports numpy: it reads this once.
os.environ["OMP_NUM_THREADS"] = "1"

import mutmut.__main__ as mutmut
import yaml
from mutmut.mutation.data import SourceFileMutationData
from mutmut.mutation.diff_apply import get_diff_for_mutant
from mutmut.stats import status_by_exit_code
from mutmut.utils.file_utils import walk_mutatable_files
from mutmut.utils.format_utils import orig_function_and_class_names_from_key

from Testing.mutation.decorated import include_decorated

HERE = Path(__file__).resolve().parent
ROOT = HERE.parents[1]
LEAST = 0.85
"""Share of the mutants that tests have to notice."""
NOTICED = ("killed", "timeout")
"""A test failed; or the tests took more than fifteen times as long as without the change, which CI would not pass."""
UNEXPLAINED = "Nobody has looked at these yet."


@dataclass(frozen=True)
class Survivor:
    """A change that no test notices."""

    file: str
    line: int
    function: str
    was: str
    now: str

    @property
    def name(self) -> tuple[str, str, str]:
        """What it is known by, also when the lines above it change."""
        return self.file, self.function, self.now


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("patterns", nargs="*")
    patterns = parser.parse_args().patterns
    os.chdir(ROOT)
    if not patterns:
        shutil.rmtree("mutants", ignore_errors=True)
    include_decorated()
    began = monotonic()
    mutmut._run(patterns, max_children=1)
    minutes = (monotonic() - began) / 60
    results = {
        path.relative_to("radllm_backend").as_posix(): _results(path, patterns) for path in walk_mutatable_files()
    }
    counts = {file: Counter(found.values()) for file, found in sorted(results.items()) if found}
    table, share = _table(counts)
    survivors = [_survivor(file, name) for file, found in results.items() for name in _unnoticed(found)]
    page = _page(table, minutes, survivors, _reasons())
    print(page)
    if not patterns:
        (HERE / "survivors.md").write_text(page, encoding="utf-8")
    return int(share < LEAST)


def _results(path: Path, patterns: Sequence[str]) -> dict[str, str]:
    """What came of each mutant of a file."""
    data = SourceFileMutationData(path=path)
    data.load()
    chosen = {
        name: code
        for name, code in data.exit_code_by_key.items()
        if not patterns or any(fnmatch.fnmatch(name, pattern) for pattern in patterns)
    }
    return {name: status_by_exit_code[code] for name, code in chosen.items()}


def _unnoticed(results: dict[str, str]) -> Iterable[str]:
    return (name for name, status in results.items() if status not in NOTICED)


def _table(counts: dict[str, Counter[str]]) -> tuple[str, float]:
    """Markdown, and the share of all mutants that were noticed."""
    total = sum(counts.values(), Counter[str]())
    lines = ["| file | mutants | killed | too slow | survived | without a test | noticed |", "| --- |" + " ---: |" * 6]
    for title, count in [*((f"`{file}`", count) for file, count in counts.items()), ("all", total)]:
        if left := count["not checked"] + count["check was interrupted by user"]:
            raise RuntimeError(f"{left} mutants of {title} were not tested.")
        killed, slow, untested = (count[status] for status in (*NOTICED, "no tests"))
        survived = count.total() - killed - slow - untested
        figures = [count.total(), killed, slow, survived, untested, f"{_share(count):.1%}"]
        lines.append(f"| {title} | {' | '.join(map(str, figures))} |")
    return "\n".join(lines), _share(total)


def _share(count: Counter[str]) -> float:
    return sum(count[status] for status in NOTICED) / count.total()


def _survivor(file: str, name: str) -> Survivor:
    path = Path("radllm_backend") / file
    changed = [line for line in get_diff_for_mutant(name, path=path).splitlines() if line[:3] not in ("---", "+++")]
    was, now = (" ".join(line[1:].strip() for line in changed if line[0] == sign) for sign in "-+")
    function, of_class = orig_function_and_class_names_from_key(name)
    lines = path.read_text(encoding="utf-8").splitlines()
    start = next(number for number, line in enumerate(lines) if line.strip().startswith(f"def {function}("))
    first = next(line[1:].strip() for line in changed if line[0] == "-")
    line = next(number for number, line in enumerate(lines[start:], start + 1) if line.strip() == first)
    return Survivor(file, line, f"{of_class}.{function}" if of_class else function, was, now)


def _reasons() -> dict[tuple[str, str, str], str]:
    groups = yaml.safe_load((HERE / "reasons.yaml").read_text(encoding="utf-8"))
    return {(file, function, now): group["why"] for group in groups for file, function, now in group["mutants"]}


def _page(table: str, minutes: float, survivors: Sequence[Survivor], reasons: dict[tuple[str, str, str], str]) -> str:
    by_reason: dict[str, list[Survivor]] = defaultdict(list)
    for survivor in survivors:
        by_reason[reasons.get(survivor.name, UNEXPLAINED)].append(survivor)
    order = [UNEXPLAINED, *dict.fromkeys(reasons.values())]
    parts = [
        "# What no test notices",
        f"`python -m Testing.mutation` wrote this, in {minutes:.0f} minutes on one core: see [README.md](README.md).",
        table,
    ]
    for reason in sorted(by_reason, key=order.index):
        parts += [f"**{reason}**", "\n".join(map(_line, by_reason[reason]))]
    return "\n\n".join(parts) + "\n"


def _line(survivor: Survivor) -> str:
    return f"- `{survivor.file}:{survivor.line}` {survivor.function}\n  - `{survivor.was}`\n  - `{survivor.now}`"


if __name__ == "__main__":
    sys.exit(main())
