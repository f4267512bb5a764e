"""What other software may rely on: the names at the package's root."""

from __future__ import annotations

import ast
import inspect
from pathlib import Path

import pytest

import radllm_backend
from radllm_backend.learning.options import CrossValidation, TrainingOptions
from Testing.doors.test_start_up import loaded_by

PUBLIC = {
    *("Lesion", "Features", "Prediction", "Model", "Client", "RadllmError", "Settings"),
    *("extract", "load_settings", "read_table", "train", "evaluate", "write_reports", "__version__"),
}


def test_the_public_names_are_these_and_listed():
    assert set(radllm_backend.__all__) == PUBLIC
    assert set(dir(radllm_backend)) >= PUBLIC


@pytest.mark.parametrize("name", sorted(PUBLIC))
def test_every_public_name_is_there_and_says_what_it_is(name):
    if name in ("train", "evaluate"):
        pytest.importorskip("torch")
    found = getattr(radllm_backend, name)
    if name != "__version__":
        assert found.__name__ == name
        assert found.__module__.startswith("radllm_backend.")
        assert inspect.getdoc(found)


def test_a_name_that_is_none_is_an_attribute_error():
    with pytest.raises(AttributeError, match="'radllm_backend' has no attribute 'predict'"):
        radllm_backend.predict  # noqa: B018
    with pytest.raises(ImportError, match="cannot import name 'predict'"):
        from radllm_backend import predict  # noqa: F401


def test_listing_the_names_imports_nothing():
    assert loaded_by("import radllm_backend\ndir(radllm_backend)") == set()


def test_a_type_checker_sees_the_same_names():
    """The imports for type checkers are of the very names and files that are looked up at run time."""
    tree = ast.parse(Path(radllm_backend.__file__).read_text(encoding="utf-8"))
    imports = [node for node in ast.walk(tree) if isinstance(node, ast.ImportFrom)]
    seen = {
        alias.name: str(node.module).removeprefix("radllm_backend.")
        for node in imports
        for alias in node.names
        if str(node.module).startswith("radllm_backend.")
    }
    assert seen == radllm_backend._HOMES


@pytest.mark.parametrize("name", ["train", "evaluate"])
def test_no_option_is_hidden_by_an_argument(name):
    pytest.importorskip("torch")
    arguments = set(inspect.signature(getattr(radllm_backend, name)).parameters)
    assert not arguments & {*TrainingOptions.model_fields, *CrossValidation.model_fields}


def test_an_unknown_option_is_one_sentence(phantom_table, tiny_base, fresh_cache, tmp_path):
    pytest.importorskip("torch")
    for function in (radllm_backend.train, radllm_backend.evaluate):
        with pytest.raises(radllm_backend.RadllmError, match="There is no option 'feature'"):
            function(phantom_table, "label", "patient", tmp_path / "out", base_model=tiny_base, feature=4)


@pytest.mark.usefixtures("lean")
def test_a_table_that_was_read_is_as_good_as_its_file(phantom_table, tiny_base, fresh_cache, tmp_path):
    pytest.importorskip("torch")
    columns = {"target": "label", "group": "patient"}
    some = {"language": False, "folds": 2, "inner_folds": 2, "seeds": 1, "scale_free": True}
    table = radllm_backend.read_table(phantom_table)
    seen: list[float] = []
    scorecard = radllm_backend.evaluate(
        table, **columns, output=tmp_path / "out", progress=lambda _, done: seen.append(done), **some
    )
    assert scorecard.table_sha256 == table.sha256
    assert (scorecard.folds, scorecard.seeds, scorecard.lesions) == (2, [0], len(table))
    assert seen == sorted(seen)
    assert (tmp_path / "out" / "evaluation.html").is_file()
    assert scorecard.command == (
        "radllm evaluate table.csv --target label --group patient --no-language --folds 2 --inner-folds 2 --seeds 1 "
        "--scale-free -o out"
    )
    made = radllm_backend.features.table.FeatureTable(**{**vars(table), "sha256": ""})
    with pytest.raises(radllm_backend.RadllmError, match="was not read from a file"):
        radllm_backend.evaluate(made, **columns, output=tmp_path / "other", **some)
