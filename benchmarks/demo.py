"""``python3 develop.py demo`` in fresh clones of this tree and of a release: time, and disk for packages and model."""

from __future__ import annotations

import itertools
import os
import shutil
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from functools import partial
from pathlib import Path
from typing import NamedTuple

from benchmarks.comparison import Comparison, Tell, in_turn
from benchmarks.trees import Tree, last_line, release_tree, this_tree
from radllm_backend.errors import RadllmError

_QUICKER, _SMALLER = 1 / 0.7, 1 / 0.6
"""At most 70% of the time and 60% of the disk."""
_REPORTS = ("oval", "spiculated")


class Demo(NamedTuple):
    """What a demo took, and whether it brought torch."""

    seconds: float
    disk: float
    """MB of packages and base model together."""
    has_torch: bool


def comparisons(runs: int, work: Path, tell: Tell, release: Path) -> Iterator[Comparison]:
    """Time and disk, every time from nothing: no virtual environment, no base model, nothing in pip's own cache.

    Both are what is committed. Each round starts with the other tree, for what is fetched may lie in a cache then.

    Raises:
        RadllmError: a demo fails, ends without its two reports, or this tree's installs torch.
    """
    then, now = release_tree(release), this_tree()
    tell(f"develop.py demo of both trees, {runs} rounds: minutes each")
    turns = itertools.cycle((False, True))

    def one_round() -> tuple[Demo, Demo]:
        ways: list[Callable[[], Demo]] = [partial(demo, tree, work / tree.folder.name) for tree in (then, now)]
        order = (1, 0) if next(turns) else (0, 1)
        found = {number: ways[number]() for number in order}
        tell(f"demo: {found[0].seconds:.0f} s then, {found[1].seconds:.0f} s now")
        return found[0], found[1]

    rounds, loads = in_turn([one_round], runs)
    pairs = [pair for (pair,) in rounds]
    if any(ours.has_torch for _, ours in pairs):
        raise RadllmError("The demo of this tree installs torch, which reading does not need.")
    brought = "with torch" if any(usual.has_torch for usual, _ in pairs) else "without torch"
    for what, unit, wanted, part in (
        ("time", "s", _QUICKER, 0),
        ("disk of packages and base model", "MB", _SMALLER, 1),
    ):
        yield Comparison(
            subject="demo",
            case=f"python3 develop.py demo in a fresh clone: {what}",
            usual=f"the same of the release before, {brought}",
            usual_values=tuple(usual[part] for usual, _ in pairs),
            values=tuple(ours[part] for _, ours in pairs),
            unit=unit,
            wanted=wanted,
            note="two reports at the end of each, no torch in ours; an empty cache of pip and of base models before",
            loads=loads,
        )


def demo(tree: Tree, folder: Path) -> Demo:
    """Clone a tree into a folder, which is gone afterwards, and run its demo; RadllmError where it does not succeed."""
    clone, cache = folder / "clone", folder / "cache"
    environment = tree.environment(RADLLM_CACHE=str(cache), PIP_CACHE_DIR=str(folder / "pip"))
    del environment["PYTHONPATH"]
    try:
        _run(["git", "clone", "--quiet", str(tree.folder), str(clone)], environment)
        begun = time.perf_counter()
        _run([sys.executable, str(clone / "develop.py"), "demo"], environment)
        seconds = time.perf_counter() - begun
        missing = [name for name in _REPORTS if not (clone / "out" / name / "report.html").is_file()]
        if missing:
            raise RadllmError(f"The demo of {tree.folder.name} ended without the report of the lesion {missing[0]}.")
        has_torch = any((clone / ".venv").glob("**/site-packages/torch/__init__.py"))
        return Demo(seconds, (disk_use(clone / ".venv") + disk_use(cache)) / 2**20, has_torch)
    finally:
        shutil.rmtree(folder, ignore_errors=True)


def disk_use(folder: Path) -> int:
    """Bytes that a folder's files take on the disk, each once however many names it has; links are not followed."""
    found = {}
    for root, _, names in os.walk(folder):
        for name in names:
            status = os.lstat(os.path.join(root, name))
            # Windows does not tell the blocks.
            found[status.st_dev, status.st_ino] = getattr(status, "st_blocks", 0) * 512 or status.st_size
    return sum(found.values())


def _run(command: list[str], environment: dict[str, str]) -> None:
    done = subprocess.run(command, env=environment, capture_output=True, text=True, check=False)
    if done.returncode:
        raise RadllmError(f"`{' '.join(command)}` failed: {last_line(done.stderr)}")
