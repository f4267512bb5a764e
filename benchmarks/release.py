"""This tree beside an earlier release, in turn: a lesion from a cold process to its report, and a server's start."""

from __future__ import annotations

from collections.abc import Iterator
from functools import partial
from pathlib import Path
from typing import Any

from benchmarks.comparison import Comparison, Tell, in_turn
from benchmarks.start_up import MODEL, first_answer
from benchmarks.trees import Spent, Tree, release_tree, this_tree
from radllm_backend.errors import RadllmError
from radllm_backend.models.bundle import read_bundle
from radllm_backend.server.models import sample_lesion

REPORT = ("prediction.json", "features.csv", "report.html", "report.pdf", "key-image.png")
_SAMPLES = this_tree().folder / "Resources" / "SampleLesions"
_QUICKER, _SMALLER, _QUICKER_SERVER = 2.5, 2.0, 3.0


def comparisons(runs: int, work: Path, tell: Tell, release: Path) -> Iterator[Comparison]:
    """Three comparisons, each way once before it counts: files lie in the system's cache, and Python's are compiled.

    Raises:
        RadllmError: the release has no virtual environment, one of the two trees lacks a package, or the base model is
            not there.
    """
    then, now = release_tree(release), this_tree()
    tell(f"radllm classify in fresh processes, {runs} rounds of both trees")
    ways = [partial(classify, tree, work / f"report-{number}") for number, tree in enumerate((then, now))]
    spent, loads = in_turn(ways, runs, warm_up=True)
    case = f"radllm classify --model {MODEL}, a sample lesion: process to report"
    kept = "each tree with the model that it ships, and with as many threads as it chooses"
    for what, unit, wanted, part in (("", "s", _QUICKER, 0), (", peak memory", "MB", _SMALLER, 1)):
        usual, ours = zip(*((before[part], after[part]) for before, after in spent), strict=True)
        yield _comparison(case + what, usual, ours, unit=unit, wanted=wanted, note=kept, loads=loads)
    tell(f"radllm serve to its first answer, {runs} rounds of both trees")
    lesion = sample_lesion(read_bundle(MODEL).card)
    starts = [partial(first_answer, lesion, work / f"token-{number}", tree) for number, tree in enumerate((then, now))]
    seconds, loads = in_turn(starts, runs, warm_up=True)
    usual, ours = zip(*seconds, strict=True)
    case = f"radllm serve --model {MODEL}: process to first answer"
    said = "a prediction without its reasons, over the socket"
    yield _comparison(case, usual, ours, wanted=_QUICKER_SERVER, note=said, loads=loads)


def _comparison(case: str, usual: tuple[float, ...], ours: tuple[float, ...], **more: Any) -> Comparison:
    called = "the same command of the release before"
    return Comparison(subject="release", case=case, usual=called, usual_values=usual, values=ours, **more)


def classify(tree: Tree, output: Path) -> Spent:
    """A sample lesion to the files of its report; RadllmError where one of them is not written."""
    for name in REPORT:
        (output / name).unlink(missing_ok=True)
    image, mask = _SAMPLES / "oval.png", _SAMPLES / "oval_mask.png"
    given = ("--model", MODEL, "--modality", "US", "--spacing", "0.08", "-o", str(output))
    spent = tree.radllm("classify", str(image), str(mask), *given)
    missing = [name for name in REPORT if not (output / name).is_file()]
    if missing:
        raise RadllmError(f"`radllm classify` of {tree.folder.name} wrote no {missing[0]}.")
    return spent
