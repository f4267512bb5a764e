"""Where the model runs, as the panel's user chooses it: a server that dies, that refuses, that is far away."""

from __future__ import annotations

import os
import signal
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest

from radllm_backend.server.local import LocalServer
from Testing.slicer.module_scene import (
    MASKS,
    add_segmentation,
    add_volume,
    begin,
    choose_backend,
    choose_modality,
    choose_own_model,
    classify,
    finish,
    probabilities,
    rows,
    shown,
    slicer,
    tables,
    wait_until,
)

LocalServers = Callable[..., LocalServer]


@pytest.fixture(scope="module")
def elsewhere(
    self_contained_model: Path, backend_python: str, tmp_path_factory: pytest.TempPathFactory
) -> Iterator[LocalServer]:
    """A server that somebody else started."""
    folder = tmp_path_factory.mktemp("elsewhere")
    environment = {
        **os.environ,
        "RADLLM_CACHE": str(self_contained_model.parent / "cache"),
        "XDG_RUNTIME_DIR": str(folder),
    }
    with LocalServer.start(
        ["--model", str(self_contained_model)], python=backend_python, environment=environment
    ) as one:
        yield one


@pytest.fixture
def asked(monkeypatch: pytest.MonkeyPatch) -> list[tuple[str, str]]:
    """What the user was asked, (sentence, details); the answer is yes."""
    questions: list[tuple[str, str]] = []

    def confirm(text: str, _title: str | None = None, **more: Any) -> bool:
        questions.append((text, more.get("detailedText", "")))
        return True

    monkeypatch.setattr(slicer.util, "confirmOkCancelDisplay", confirm)
    return questions


def token_of(server: LocalServer) -> str:
    return Path(str(server.ready.token_file)).read_text(encoding="utf-8").strip()


def connect(panel: Any, address: str, token: str) -> None:
    choose_backend(panel, "remote")
    panel.ui.addressEdit.text = address
    panel.ui.tokenEdit.text = token
    panel.ui.connectButton.click()
    finish(panel)


# --- a process of its own -------------------------------------------------------------------------------------------


def local(panel: Any, model: Path) -> Any:
    choose_backend(panel, "local")
    choose_own_model(panel, model)
    choose_modality(panel, "US")
    add_segmentation(add_volume())
    return panel.logic.backends["local"]


@pytest.mark.long
def test_a_server_killed_during_the_run_is_one_sentence_and_the_next_click_works(
    panel: Any, self_contained_model: Path
) -> None:
    server = local(panel, self_contained_model)
    classify(panel)
    before, killed = probabilities(), server.processId
    begin(panel)
    wait_until(lambda: panel.ui.statusLabel.text.startswith("Measuring"))
    os.kill(killed, signal.SIGKILL)
    finish(panel)
    assert [row["probability"] for row in rows(tables()[0])] == ["", ""]
    assert all("does not answer" in row["problem"] for row in rows(tables()[0]))
    assert [row[2] for row in shown(panel)] == ["not classified"] * 2
    classify(panel)
    assert probabilities() == before
    assert server.processId != killed


def test_another_model_is_served_beside_the_first(panel: Any, self_contained_model: Path, volume_model: Path) -> None:
    server = local(panel, self_contained_model)
    classify(panel)
    choose_own_model(panel, volume_model)
    classify(panel)
    assert "3D images" in rows(tables()[0])[0]["problem"]  # its own settings were used
    running = server.processId
    choose_own_model(panel, self_contained_model)
    classify(panel)
    assert len(probabilities()) == 2
    assert server.processId == running


def test_a_python_without_the_backend_is_one_sentence(panel: Any, self_contained_model: Path, tmp_path: Path) -> None:
    from RadiomicsLLMLib import LocalServerBackend
    from RadiomicsLLMLib.backend.BackendPython import GivenPython

    panel.logic.backends["local"] = LocalServerBackend(GivenPython(tmp_path / "no-python"))
    local(panel, self_contained_model)
    classify(panel)
    assert "The server cannot be started with" in panel.ui.statusLabel.text
    assert tables() == []


# --- another machine ------------------------------------------------------------------------------------------------


def test_what_is_sent_is_shown_once_and_only_names_and_numbers_go(
    panel: Any, elsewhere: LocalServer, asked: list[tuple[str, str]]
) -> None:
    volume = add_volume()
    volume.SetName("Jane Doe")
    add_segmentation(volume)
    connect(panel, elsewhere.ready.url, token_of(elsewhere))
    choose_modality(panel, "US")
    assert panel.ui.modelSelector.currentText == "phantoms"
    assert panel.ui.modelSelector.count == 1  # no folder of this computer
    classify(panel)
    assert len(probabilities()) == len(MASKS)
    classify(panel)
    ((sentence, details),) = asked
    assert f"will be sent to {elsewhere.ready.url}" in sentence
    assert "original_" in details
    assert "Jane" not in details
    assert "the oval" not in details


def test_nothing_is_sent_where_the_user_says_no(
    panel: Any, elsewhere: LocalServer, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(slicer.util, "confirmOkCancelDisplay", lambda *_, **__: False)
    add_segmentation(add_volume())
    connect(panel, elsewhere.ready.url, token_of(elsewhere))
    classify(panel)
    assert panel.ui.statusLabel.text == "Nothing was sent, so nothing was classified."
    assert tables() == []


def test_a_wrong_token_is_one_sentence(panel: Any, elsewhere: LocalServer) -> None:
    add_segmentation(add_volume())
    connect(panel, elsewhere.ready.url, "wrong")
    assert "token" in panel.ui.statusLabel.text
    assert panel.ui.modelSelector.count == 0
    assert "Connect" in panel.ui.classifyButton.toolTip
    assert not panel.ui.classifyButton.enabled
    connect(panel, elsewhere.ready.url, token_of(elsewhere))
    assert panel.ui.classifyButton.enabled


@pytest.mark.long
def test_a_server_of_another_version_says_which_side_to_update(
    panel: Any, self_contained_model: Path, backend_python: str, tmp_path: Path
) -> None:
    tomorrow = tmp_path / "python-of-tomorrow"
    code = (
        "import runpy, sys; import radllm_backend.server.protocol as p; p.PROTOCOL = p.OLDEST_PROTOCOL = 9; "
        "sys.argv = ['radllm', *sys.argv[3:]]; runpy.run_module('radllm_backend', run_name='__main__')"
    )
    tomorrow.write_text(f'#!/bin/sh\nexec "{backend_python}" -c "{code}" "$@"\n', encoding="utf-8")
    tomorrow.chmod(0o755)
    environment = {**os.environ, "XDG_RUNTIME_DIR": str(tmp_path)}
    with LocalServer.start(["--model", str(self_contained_model)], python=tomorrow, environment=environment) as server:
        connect(panel, server.ready.url, token_of(server))
        assert "update the client's radllm" in panel.ui.statusLabel.text
        assert panel.ui.modelSelector.count == 0


@pytest.mark.parametrize("address", ["nonsense", "http://192.0.2.1:8000", "http://127.0.0.1:9"])
def test_an_address_where_no_server_can_be_is_one_sentence(panel: Any, address: str) -> None:
    connect(panel, address, "token")
    assert panel.ui.statusLabel.text.endswith(".")
    assert len(panel.ui.statusLabel.text) > 20
    assert panel.ui.modelSelector.count == 0


def test_the_choice_and_the_address_are_remembered_and_the_token_is_not(panel: Any) -> None:
    from Testing.slicer.harness import close_module, open_module
    from Testing.slicer.module_scene import RadiomicsLLM

    choose_backend(panel, "remote")
    panel.ui.addressEdit.text = "https://gpu:1234"
    panel.ui.tokenEdit.text = "secret"
    other = open_module(RadiomicsLLM)
    assert other.ui.backendSelector.currentData == "remote"
    assert (other.ui.addressEdit.text, other.ui.tokenEdit.text) == ("https://gpu:1234", "")
    close_module(other)


# --- this process ---------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("package", "sentence"),
    [
        ("radllm_backend", "The package radllm_backend is missing: install the extension RadiomicsLLM again."),
    ],
)
def test_what_no_package_can_replace_is_said_in_the_panel(
    panel: Any, monkeypatch: pytest.MonkeyPatch, package: str, sentence: str
) -> None:
    import sys

    choose_backend(panel, "process")
    add_segmentation(add_volume())
    monkeypatch.setitem(sys.modules, package, None)
    panel.enter()
    assert panel.ui.statusLabel.text == sentence
    assert panel.ui.classifyButton.toolTip == sentence
    assert not panel.ui.classifyButton.enabled
    monkeypatch.undo()
    panel.enter()
    assert panel.ui.statusLabel.text == ""


def test_a_model_is_loaded_once_and_again_when_it_has_changed(
    panel: Any, self_contained_model: Path, tmp_path: Path
) -> None:
    backend = panel.logic.backends["process"]
    model = backend.model(str(self_contained_model))
    assert backend.model(str(self_contained_model)) is model
    changed = tmp_path / "phantoms"
    changed.mkdir()
    for path in self_contained_model.iterdir():
        (changed / path.name).write_bytes(path.read_bytes())
    card = changed / "model.json"
    card.write_text(card.read_text().replace('"threshold": 0.5', '"threshold": 0.25'))
    assert backend.model(str(changed)).card.threshold == 0.25
