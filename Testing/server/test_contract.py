"""The OpenAPI page is the whole truth: whatever is asked, no answer but those it declares (schemathesis)."""

from __future__ import annotations

import json
import re
import subprocess
import sys
from pathlib import Path

import pytest

pytest.importorskip("torch")
pytest.importorskip("uvicorn")
pytest.importorskip("schemathesis")
from Testing.support.servers import ask, token_of

# The page cannot say which lesions a model can read: one of the right form may still lack a feature.
UNKNOWABLE = "positive_data_acceptance"


def schemathesis(page: dict, url: str, folder: Path, *arguments: str) -> int:
    """Run it over a page; the number of requests that it made. No check may have failed."""
    (folder / "page.json").write_text(json.dumps(page))
    command = [str(Path(sys.executable).with_name("schemathesis")), "run", str(folder / "page.json"), "--url", url]
    chosen = ["--phases", "examples,coverage,fuzzing", "--exclude-checks", UNKNOWABLE, "--seed", "1", "--no-color"]
    # From an empty folder: it remembers in its working folder.
    run = subprocess.run([*command, *chosen, *arguments], cwd=folder, capture_output=True, text=True, timeout=300)
    assert run.returncode == 0, run.stdout[-4000:]
    found = re.search(r"(\d+) generated, \1 passed", run.stdout)
    assert found, run.stdout[-4000:]
    return int(found[1])


@pytest.fixture(scope="module")
def page(tiny_server) -> dict:
    return ask(tiny_server, "GET", "/openapi.json")[1]


@pytest.mark.long
def test_with_the_token_every_answer_is_a_declared_one(tiny_server, page, tmp_path):
    token = ("-H", f"Authorization: Bearer {token_of(tiny_server)}")
    assert schemathesis(page, tiny_server.ready.url, tmp_path, *token, "--max-examples", "25") > 500


@pytest.mark.long
def test_without_the_token_every_answer_is_a_declared_one(tiny_server, page, tmp_path):
    # Only the health and the refusals are left: nothing can be accepted that should have been rejected.
    rejected = ("--exclude-checks", f"{UNKNOWABLE},negative_data_rejection,missing_required_header")
    assert schemathesis(page, tiny_server.ready.url, tmp_path, *rejected, "--max-examples", "5") > 300


def test_the_page_declares_no_more_than_the_health_without_the_token(page):
    for path, calls in page["paths"].items():
        for call in calls.values():
            assert bool(call.get("security")) == (path != "/health")
            assert {"401", "403"} <= call["responses"].keys()
