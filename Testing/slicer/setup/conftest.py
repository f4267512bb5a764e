"""What holds for every test of setting up."""

from __future__ import annotations

from collections.abc import Iterator

import pytest


@pytest.fixture(autouse=True, scope="module")
def own_cache_home(tmp_path_factory: pytest.TempPathFactory) -> Iterator[None]:
    """*Remove downloads* takes the base model out of the user's cache: never out of that of whoever runs the tests."""
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("XDG_CACHE_HOME", str(tmp_path_factory.mktemp("cache home")))
        yield
