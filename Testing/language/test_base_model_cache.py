"""Where base models are kept."""

from __future__ import annotations

from pathlib import Path

import pytest

from radllm_backend.language import base_model_cache as model_cache


def test_the_cache_is_where_the_environment_says_or_the_users_own(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("RADLLM_CACHE", "~/somewhere")
    assert model_cache.cache_folder() == Path.home() / "somewhere"
    monkeypatch.setenv("RADLLM_CACHE", "")
    monkeypatch.setenv("XDG_CACHE_HOME", "")
    assert model_cache.cache_folder().is_relative_to(Path.home())
