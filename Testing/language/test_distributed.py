"""Several processes share one training as one would do it alone, and 4-bit weights are refused where they cannot be.

The processes are real ones, started by ``accelerate launch`` as on several GPUs, but on the CPU.
"""

from __future__ import annotations

import os
import socket
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest

pytest.importorskip("torch")
pytest.importorskip("accelerate")

import psutil
import torch
from hypothesis import given
from hypothesis import strategies as st
from safetensors.torch import load_file

from radllm_backend.cli import main as cli
from radllm_backend.errors import RadllmError
from radllm_backend.language import backbone, base_models
from radllm_backend.language import distributed as processes
from radllm_backend.language import torch_reader as llm
from radllm_backend.learning.fit import fit
from radllm_backend.learning.options import TrainingOptions
from Testing.support.cohorts import NAMES, lesions

TOLERANCE = 1e-4


@pytest.fixture(scope="module")
def table(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A feature table of lesions made of random numbers."""
    cases = lesions(40)
    lines = [",".join(["lesion", "label", "patient", *NAMES])]
    for row, values in enumerate(cases.values):
        words = [f"lesion{row}", ("benign", "malignant")[cases.labels[row]], cases.groups[row]]
        lines.append(",".join([*words, *(f"{value:.6f}" for value in values)]))
    path = tmp_path_factory.mktemp("table") / "table.csv"
    path.write_text("\n".join(lines) + "\n", encoding="utf-8")
    return path


def training(table: Path, base: Path, output: Path) -> list[str]:
    """The words of ``radllm train``; batches of 8, which two processes divide evenly."""
    words = f"--target label --group patient --settings breast-ultrasound --modality US --base-model {base} --folds 0"
    options = "--features 2 --epochs 12 --patience 12 --rank 4 --learning-rate 0.005"
    return ["train", str(table), *words.split(), *options.split(), "--output", str(output)]


def launched(*words: str) -> subprocess.Popen:
    """Two processes under ``accelerate launch``; what they say comes together."""
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        port = str(free.getsockname()[1])
    launch = ["-m", "accelerate.commands.launch", "--num_processes", "2", "--num_machines", "1"]
    return subprocess.Popen(
        [sys.executable, *launch, "--main_process_port", port, *words],
        stdout=subprocess.PIPE,
        stderr=subprocess.STDOUT,
        text=True,
        env={**os.environ, "ACCELERATE_USE_CPU": "true", "OMP_NUM_THREADS": "1"},
    )


def kill(launcher: subprocess.Popen) -> None:
    """All at once, as a power cut does."""
    root = psutil.Process(launcher.pid)
    for process in [root, *root.children(recursive=True)]:
        process.kill()


def furthest(one: dict[str, torch.Tensor], other: dict[str, torch.Tensor]) -> float:
    assert one.keys() == other.keys()
    return max(float((one[name].double() - other[name].double()).abs().max()) for name in one)


@pytest.mark.alone
def test_two_processes_train_the_model_of_one_even_when_killed_on_the_way(
    table, tiny_base, fresh_cache, tmp_path, monkeypatch, capsys
):
    monkeypatch.setattr(sys, "argv", ["radllm", *training(table, tiny_base, tmp_path / "one")])
    monkeypatch.setattr("radllm_backend.learning.fit._MICRO_BATCH", 4)  # what each of two adds up of a batch of 8
    with pytest.raises(SystemExit, match="0"):
        cli.main()
    alone = capsys.readouterr()
    command = ["--multi_gpu", "-m", "radllm_backend", *training(table, tiny_base, tmp_path / "two")]
    with launched(*command) as first:
        for line in first.stdout:
            if "epoch 2/" in line:
                kill(first)
                break
    with launched(*command) as second:
        said = second.stdout.read()
    assert second.returncode == 0, said
    told, whole = ([line for line in text.splitlines() if ", loss" in line] for text in (said, alone.err))
    assert len(whole) == 12
    assert told == whole[-len(told) :]  # each epoch once
    assert 0 < len(told) < 12
    assert said.count("The model two lies in") == 1
    assert sorted(path.name for path in tmp_path.iterdir() if path.name != "cache") == ["one", "two"]
    adapters = [load_file(tmp_path / name / "adapter.safetensors") for name in ("one", "two")]
    assert furthest(*adapters) <= TOLERANCE


SHARDED = """
import sys
from pathlib import Path
sys.path.insert(0, sys.argv[4])
from Testing.language.test_distributed import ODD, lesions
from radllm_backend.language import base_models
from radllm_backend.language import distributed, torch_reader
from radllm_backend.learning.fit import fit
torch_reader.trains_in_bf16 = lambda device: False
assert distributed.sharded()
for name in sys.argv[2:4]:
    fit(lesions(37), "US", base_models.locate(sys.argv[1]), ODD, Path(name), lambda what, done: None)
distributed.leave()
"""
ODD = TrainingOptions(features=2, epochs=2, learning_rate=0.005, rank=4, batch_size=7, folds=0)
"""29 lesions in batches of 7 and a last one of 1: two processes must fill up."""


@pytest.mark.alone
def test_sharded_weights_give_the_same_and_go_on_from_a_checkpoint_of_whole_ones(
    tiny_base, fresh_cache, tmp_path, monkeypatch
):
    monkeypatch.setattr(llm, "trains_in_bf16", lambda device: False)
    base = base_models.locate(tiny_base)
    half = tmp_path / "half"

    class Stopped(Exception):
        pass

    def stop(what: str, done: float) -> None:
        if what.startswith("epoch 2/"):
            raise Stopped

    fit(lesions(37), "US", base, ODD, tmp_path / "one", lambda what, done: None)
    with pytest.raises(Stopped):
        fit(lesions(37), "US", base, ODD, half, stop)
    script = tmp_path / "script.py"
    script.write_text(SHARDED, encoding="utf-8")
    with launched(
        "--use_fsdp",
        "--fsdp_version",
        "2",
        str(script),
        str(tiny_base),
        str(tmp_path / "two"),
        str(half),
        str(Path(__file__).parents[2]),
    ) as shared:
        said = shared.stdout.read()
    assert shared.returncode == 0, said
    one, two, resumed = (load_file(tmp_path / name) for name in ("one", "two", "half"))
    assert 0 < furthest(one, two) <= TOLERANCE  # sums in another order
    assert furthest(one, resumed) <= TOLERANCE


@given(rows=st.lists(st.integers(0, 99), min_size=1, max_size=20, unique=True), count=st.integers(1, 5))
def test_every_row_counts_once_and_every_process_has_as_many(rows, count):
    parts = []
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("WORLD_SIZE", str(count))
        for rank in range(count):
            patch.setenv("RANK", str(rank))
            parts.append(processes.share(np.array(rows)))
    assert len({len(part) for part, _ in parts}) == 1
    assert np.concatenate([part[counting] for part, counting in parts]).tolist() == rows


@pytest.mark.parametrize("command", ["train", "evaluate"])
def test_four_bits_need_a_cuda_gpu(command, table, tiny_base, fresh_cache, tmp_path, monkeypatch, capsys):
    monkeypatch.setattr(torch.cuda, "is_available", lambda: False)
    words = [command, str(table), "--target", "label", "--group", "patient", "--base-model", str(tiny_base)]
    monkeypatch.setattr(sys, "argv", ["radllm", *words, "--four-bit", "--output", str(tmp_path / "out")])
    with pytest.raises(SystemExit, match="1"):
        cli.main()
    assert "--four-bit needs a CUDA GPU, and this computer has none" in capsys.readouterr().err
    assert not (tmp_path / "out").exists()


def test_four_bits_need_bitsandbytes_and_whole_weights(tiny_base, fresh_cache, monkeypatch):
    base = base_models.locate(tiny_base)
    monkeypatch.setattr(torch.cuda, "is_available", lambda: True)
    monkeypatch.setattr(backbone, "find_spec", lambda name: None)
    with pytest.raises(RadllmError, match="not installed: pip install bitsandbytes"):
        backbone.in_four_bits(base)
    monkeypatch.setattr(backbone, "find_spec", lambda name: "there")
    rounded = backbone.in_four_bits(base)
    assert rounded.four_bit
    assert (base.identity, rounded.identity) == (base.sha256, f"{base.sha256}-nf4")
    monkeypatch.setenv("WORLD_SIZE", "2")
    monkeypatch.setenv("ACCELERATE_USE_FSDP", "true")
    with pytest.raises(RadllmError, match="leave --use_fsdp out"):
        backbone.in_four_bits(base)
