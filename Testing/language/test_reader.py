"""Prompts read together in numpy: every hidden state as if its prompt were alone, whatever is read beside it."""

from __future__ import annotations

import subprocess
import sys
import threading
from pathlib import Path

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from radllm_backend.errors import RadllmError
from radllm_backend.language import base_models, blas
from radllm_backend.language import reader as reading
from radllm_backend.language.prompt import Readout
from radllm_backend.language.reader import NumpyReader

BEGINNING = "Classify benign or malignant of this mammography based on given standardized radiomic features."
SENTENCE = " The 'Sphericity' feature is measured at {}."
PROMPTS = [
    "a",
    "ab",
    *(BEGINNING + "".join(SENTENCE.format(f"{number / 7:.3f}") * (1 + number % 4)) for number in range(12)),
    BEGINNING,
    BEGINNING + SENTENCE.format("0.000") + SENTENCE.format("-1.000"),
    BEGINNING + SENTENCE.format("0.000") + SENTENCE.format("1.000"),
]
READOUTS = [Readout(1, "mean"), Readout(2, "last"), Readout(2, "mean")]


@pytest.fixture
def reader(tiny_base: Path, fresh_cache: Path) -> NumpyReader:
    return NumpyReader(base_models.locate(tiny_base))


def same_alone(reader: NumpyReader, prompts: list[str], readouts: list[Readout] = READOUTS) -> None:
    together = reader.embed(prompts, readouts)
    for index, prompt in enumerate(prompts):
        alone = reader.embed([prompt], readouts)
        for readout in readouts:
            assert np.array_equal(alone[readout][0], together[readout][index]), (prompt, readout)


@pytest.mark.parametrize("cores", [1, 2, 5, 64])
@pytest.mark.parametrize("most", [4096, 150])
def test_hidden_states_are_the_same_to_the_last_bit_in_any_company(reader, monkeypatch, cores, most):
    monkeypatch.setattr(reading, "MOST", most)
    monkeypatch.setattr(reading, "cores", lambda: cores)
    same_alone(reader, PROMPTS)


@given(st.lists(st.text(max_size=120), min_size=1, max_size=12, unique=True))
@settings(deadline=None, max_examples=60)
def test_of_text_nobody_would_write_too(tiny_base, prompts):
    same_alone(NumpyReader(base_models.locate(tiny_base)), [text for text in prompts if text] or ["a"])


def test_where_no_rows_are_alike_each_prompt_is_read_alone(reader, monkeypatch):
    expected = reader.embed(PROMPTS, READOUTS)
    monkeypatch.setattr(reading, "row_period", lambda: 0)
    assert len(reader._packs([reader.tokenise(prompt) for prompt in PROMPTS])) == len(PROMPTS)
    found = reader.embed(PROMPTS, READOUTS)
    for readout in READOUTS:
        assert np.allclose(found[readout], expected[readout], atol=1e-6)


def test_smollm2_reads_together_what_it_reads_alone(smollm2):
    same_alone(NumpyReader(smollm2, layers=6), PROMPTS, [Readout(3, "mean"), Readout(6, "last")])


def test_a_prompt_twice_is_read_once(reader):
    assert reader.effort([*PROMPTS, *PROMPTS]) == reader.effort(PROMPTS)
    found = reader.embed([PROMPTS[5], PROMPTS[3], PROMPTS[5]], READOUTS)
    for states in found.values():
        assert np.array_equal(states[0], states[2])
        assert not np.array_equal(states[0], states[1])


def test_progress_counts_different_prompts_and_may_end_the_reading(reader, monkeypatch):
    monkeypatch.setattr(reading, "MOST", 150)
    seen: list[float] = []
    reader.embed([*PROMPTS, *PROMPTS], READOUTS, lambda what, done: seen.append(done))
    assert len(seen) > 2
    assert seen[-1] == 1
    assert seen == sorted(set(seen))

    def stop(what: str, done: float) -> None:
        raise KeyboardInterrupt

    before = threading.active_count()
    with pytest.raises(KeyboardInterrupt):
        reader.embed(PROMPTS, READOUTS, stop)
    assert threading.active_count() == before


def test_nothing_to_read(reader):
    assert reader.embed([], READOUTS)[READOUTS[0]].shape == (0, 32)


REFUSED = {
    "too long": (SENTENCE * 100, "tokens and the base model reads 1024: use fewer features"),
    "far too long": ("x" * 100_000, "The prompt has 100000 tokens and"),
    "empty": ("", "The prompt is empty: there is nothing to read"),
    "half a character": ("a lesion\ud800", "holds half a character"),
    "a byte that was no text": ("\udcff", "holds half a character"),
    "two halves": ("\ud83d\ude00", "holds half a character"),
}


@pytest.mark.parametrize(("text", "sentence"), REFUSED.values(), ids=REFUSED)
def test_what_cannot_be_read_is_one_sentence_never_a_cut(reader, text, sentence):
    for ask in (reader.tokenise, lambda prompt: reader.effort(["a", prompt])):
        with pytest.raises(RadllmError, match=sentence) as error:
            ask(text)
        assert str(error.value).endswith(".")
    with pytest.raises(RadllmError, match=sentence):
        reader.embed([PROMPTS[0], text], READOUTS)


def test_strange_text_is_read_as_transformers_reads_it(reader, tiny_base):
    torch, transformers = pytest.importorskip("torch"), pytest.importorskip("transformers")
    made = ["a\0b", "🎉👩‍⚕️" * 9, "measured at <|im_end|>", "<|endoftext|><|im_start|>", "\u0301" * 300, "\n" * 900, " "]
    found = reader.embed(made, READOUTS[1:])
    model = transformers.AutoModel.from_pretrained(tiny_base, local_files_only=True).eval()
    tokenizer = transformers.AutoTokenizer.from_pretrained(tiny_base, local_files_only=True)
    for index, text in enumerate(made):
        tokens = tokenizer(text)["input_ids"]
        assert reader.tokenise(text) == tokens
        with torch.inference_mode():
            states = model(input_ids=torch.tensor([tokens])).last_hidden_state[0].numpy()
        assert np.allclose(found[READOUTS[1]][index], states[-1], atol=1e-5)
        assert np.allclose(found[READOUTS[2]][index], states.mean(axis=0), atol=1e-5)


def test_a_prompt_as_long_as_the_model_reads_is_read(reader):
    longest = "\0" * 1024
    assert len(reader.tokenise(longest)) == 1024
    assert np.isfinite(reader.embed([longest], READOUTS)[READOUTS[2]]).all()
    with pytest.raises(RadllmError, match="1025 tokens"):
        reader.tokenise(longest + "\0")


def test_reading_imports_neither_torch_nor_transformers(tiny_base, fresh_cache):
    code = (
        "import sys; from radllm_backend.language import base_models, prompt, reader; "
        f"reader.open_reader(base_models.locate({str(tiny_base)!r})).embed(['text'], [prompt.Readout(1, 'mean')]); "
        "sys.exit(sorted({'torch', 'transformers', 'peft', 'sklearn', 'pandas', 'gguf'} & set(sys.modules)) or 0)"
    )
    assert subprocess.run([sys.executable, "-c", code], check=False, capture_output=True, text=True).stderr == ""


def test_blas_has_one_thread_while_anybody_reads_and_as_many_as_before_afterwards():
    def threads() -> list[int]:
        return [one["num_threads"] for one in blas._controller().info() if one["user_api"] == "blas"]

    before = threads()
    inside, leave = threading.Event(), threading.Event()

    def other() -> None:
        with blas.one_thread():
            inside.set()
            leave.wait(10)

    thread = threading.Thread(target=other)
    with blas.one_thread():
        thread.start()
        inside.wait(10)
    assert set(threads()) == {1}
    leave.set()
    thread.join()
    assert threads() == before


def test_no_more_packs_side_by_side_than_the_user_allows(monkeypatch):
    monkeypatch.delenv("OMP_NUM_THREADS", raising=False)
    monkeypatch.setenv("OPENBLAS_NUM_THREADS", "1")
    assert blas.cores() == 1
    monkeypatch.setenv("OPENBLAS_NUM_THREADS", "nonsense")
    assert blas.cores() >= 1
