"""From nothing to the first answer: the command's help, and a server's first prediction, each in a fresh process."""

from __future__ import annotations

import http
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from pathlib import Path

from benchmarks.comparison import Comparison, Tell, compare
from benchmarks.trees import Tree, this_tree
from radllm_backend.errors import RadllmError
from radllm_backend.language.base_models import locate
from radllm_backend.models.model import Model
from radllm_backend.records import Features
from radllm_backend.server.local import LocalServer
from radllm_backend.server.models import sample_lesion
from Testing.support.servers import ask, body_of

MODEL = "breast-us"
_EAGER = "import radiomics, sklearn, scipy.stats, SimpleITK, pydicom, tokenizers, fpdf"
_USUAL_LOAD = """
import sys, warnings
warnings.simplefilter("ignore")
import torch
from transformers import AutoModel, AutoTokenizer
tokenizer = AutoTokenizer.from_pretrained(sys.argv[1])
model = AutoModel.from_pretrained(sys.argv[1], dtype=torch.float32).eval()
with torch.no_grad():
    model(**tokenizer(sys.argv[2], return_tensors="pt"))
"""


def comparisons(runs: int, work: Path, tell: Tell) -> Iterator[Comparison]:
    """Two comparisons; RadllmError where the base model is not there."""
    tell(f"the command's help and a server's first answer, {runs} rounds")
    yield compare(
        "start-up",
        "radllm --help",
        (
            "importing what the work needs beforehand: SimpleITK, scikit-learn, PyRadiomics and others",
            _python("-c", _EAGER),
        ),
        _python("-m", "radllm_backend", "--help"),
        runs=runs,
    )
    model = Model.load(MODEL)
    lesion = sample_lesion(model.card)
    prompt = model.read(lesion).prompt
    base = locate(model.card.base.name).folder
    yield compare(
        "start-up",
        f"radllm serve --model {MODEL}: process to first answer",
        ("a process that loads the frozen base model with transformers and reads one prompt", _python(
            "-c", _USUAL_LOAD, str(base), prompt
        )),
        lambda: first_answer(lesion, work / "token", this_tree()),
        runs=runs,
        note="the server also checks every file of the model, and scores once before it is ready",
    )  # fmt: skip


def first_answer(lesion: Features, token_file: Path, tree: Tree) -> float:
    """Start a tree's server, and ask it for one prediction: the seconds until it is there."""
    arguments = ["--model", MODEL, "--token-file", str(token_file)]
    program, environment = tree.command("-m", "radllm_backend")[1:], tree.environment()
    begun = time.perf_counter()
    with LocalServer.start(arguments, python=tree.python, program=program, environment=environment) as server:
        # By hand: the client of one release may not talk to the server of another.
        status, answer, _ = ask(server, "POST", "/predict", body_of([lesion], MODEL))
        taken = time.perf_counter() - begun
        server.process.kill()
    token_file.unlink(missing_ok=True)
    if status != http.HTTPStatus.OK:
        raise RadllmError(f"The server of {tree.folder.name} answered with status {status}: {answer}")
    return taken


def _python(*arguments: str) -> Callable[[], object]:
    command = [sys.executable, *arguments]
    return lambda: subprocess.run(command, check=True, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL)
