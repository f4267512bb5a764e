"""A model of the hub: only its data files are fetched, only when asked, and it is checked like any other."""

from __future__ import annotations

import hashlib
import json
import shutil
import threading
from collections.abc import Iterator
from dataclasses import dataclass, field
from http.server import BaseHTTPRequestHandler
from pathlib import Path

import pytest

from radllm_backend.errors import RadllmError
from radllm_backend.language import base_models, fetching
from radllm_backend.language.backbone import load_backbone
from Testing.support.base_models import KEPT, edit, files_below, finish, python
from Testing.support.stand_ins import StandInServer


@dataclass
class Hub:
    """A hub of our own with one repository, tiny/llama."""

    repository: Path
    commit: str = "0123456789abcdef0123456789abcdef01234567"
    address: str = ""
    asked: list[str] = field(default_factory=list)
    """The paths that were asked for."""

    def answer(self, path: str) -> tuple[int, bytes, dict[str, str]]:
        """Status, content and headers, as the hub would give them."""
        self.asked.append(path)
        files = {str(file.relative_to(self.repository)): file for file in self.repository.rglob("*") if file.is_file()}
        if path.startswith("/api/models/tiny/llama/tree/"):
            tree = [
                {"type": "file", "path": name, "size": file.stat().st_size, "oid": digest(file)}
                for name, file in files.items()
            ]
            return 200, json.dumps(tree).encode(), {"Content-Type": "application/json"}
        if path.startswith("/api/models/tiny/llama"):
            model = {"id": "tiny/llama", "sha": self.commit, "siblings": [{"rfilename": name} for name in files]}
            return 200, json.dumps(model).encode(), {"Content-Type": "application/json"}
        file = files.get(path.removeprefix(f"/tiny/llama/resolve/{self.commit}/"))
        if file is None:
            return 404, b"", {"X-Error-Code": "RepoNotFound"}
        return 200, file.read_bytes(), {"X-Repo-Commit": self.commit, "ETag": f'"{digest(file)}"'}


def digest(file: Path) -> str:
    return hashlib.sha1(file.read_bytes()).hexdigest()


class HubHandler(BaseHTTPRequestHandler):
    hub: Hub

    def do_GET(self) -> None:
        status, content, headers = self.hub.answer(self.path.split("?")[0])
        self.send_response(status)
        for name, value in {**headers, "Content-Length": str(len(content))}.items():
            self.send_header(name, value)
        self.end_headers()
        if self.command == "GET":
            self.wfile.write(content)

    def do_HEAD(self) -> None:
        self.do_GET()

    def log_message(self, *_: object) -> None: ...


@pytest.fixture
def hub(tiny_base: Path, tmp_path: Path) -> Iterator[Hub]:
    hub = Hub(Path(shutil.copytree(tiny_base, tmp_path / "hub")))
    server = StandInServer(("127.0.0.1", 0), type("Handler", (HubHandler,), {"hub": hub}))
    hub.address = f"http://127.0.0.1:{server.server_port}"
    threading.Thread(target=server.serve_forever, daemon=True).start()
    yield hub
    server.shutdown()
    server.server_close()


HUB_PULL = """
    import sys
    from radllm_backend import errors
    from radllm_backend.language import base_models
    base_models.stay_offline()  # as the radllm command does
    try:
        print(base_models.pull(sys.argv[1]).origin)
    except errors.RadllmError as error:
        print(error)
    import huggingface_hub
    assert huggingface_hub.is_offline_mode()
"""


def test_the_hub_gives_the_model_files_and_nothing_else(hub: Hub, fresh_cache: Path, tiny_base: Path) -> None:
    for name in ("pytorch_model.bin", "modeling.py", "README.md", "original/consolidated.safetensors"):
        (hub.repository / name).parent.mkdir(exist_ok=True)
        (hub.repository / name).write_bytes(b"not wanted")
    process = python(HUB_PULL, "tiny/llama", HF_ENDPOINT=hub.address, HF_HUB_DISABLE_PROGRESS_BARS="1")
    assert finish(process) == "hub, commit 0123456789abcdef0123456789abcdef01234567\n"
    assert files_below(fresh_cache) == {f"base-models/tiny--llama/{name}" for name in KEPT}
    assert {Path(path).name for path in hub.asked if "/resolve/" in path} == KEPT - {"base.json"}

    base = base_models.verify("tiny/llama")
    assert base == base_models.pull("tiny/llama") == base_models.locate("tiny/llama")
    assert base.sha256 == base_models.locate(tiny_base).sha256
    load_backbone(base)
    model = base_models.listing()[-1]
    assert (model.name, model.installed, model.licence) == ("tiny/llama", True, "see its page on the hub")
    base_models.remove("tiny/llama")
    assert files_below(fresh_cache) == {name for name in files_below(fresh_cache) if name.startswith("folders/")}


def test_a_hub_that_cannot_be_reached_or_lacks_the_model_is_one_sentence(hub: Hub, fresh_cache: Path) -> None:
    for name, address in (("tiny/other", hub.address), ("tiny/llama", "http://127.0.0.1:9")):
        text = finish(python(HUB_PULL, name, HF_ENDPOINT=address))
        assert text.startswith(f"{name} could not be fetched from the hub (")
        assert text.count("\n") == 1
    assert files_below(fresh_cache) == set()


def test_a_hub_model_of_another_family_is_refused_by_name(
    tiny_base: Path, fresh_cache: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def download(name: str, folder: Path) -> str:
        shutil.copytree(tiny_base, folder, dirs_exist_ok=True)
        edit("config.json", model_type="gpt2")(folder)
        return "commit"

    monkeypatch.setattr(fetching, "download_snapshot", download)
    with pytest.raises(RadllmError, match=r"^some/gpt holds a model of type 'gpt2'"):
        base_models.pull("some/gpt")
    assert files_below(fresh_cache) == set()


def test_a_pulled_hub_model_comes_before_a_folder_of_that_name(
    tiny_base: Path, fresh_cache: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    shutil.copytree(tiny_base, tmp_path / "some" / "llama")
    assert base_models.locate("some/llama").folder == tmp_path / "some" / "llama"
    assert base_models.pull("some/llama").origin == "folder"
    shutil.move(tmp_path / "some", tmp_path / "elsewhere")
    monkeypatch.setattr(
        fetching, "download_snapshot", lambda name, folder: shutil.copytree(tiny_base, folder, dirs_exist_ok=True)
    )
    base_models.pull("some/llama")
    shutil.move(tmp_path / "elsewhere", tmp_path / "some")
    assert base_models.locate("some/llama").folder == fresh_cache / "base-models" / "some--llama"
