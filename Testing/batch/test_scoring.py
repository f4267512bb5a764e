"""What a batch asks of a model: a lesion that it cannot read fails alone, and a server that is gone ends the run."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

import pytest

from Testing.support.batch_cases import candidate, found, kept, plan, read_generated

pytest.importorskip("torch")
pytest.importorskip("radiomics")
pytest.importorskip("distributed")
pytest.importorskip("pyarrow")

from radllm_backend import extract
from radllm_backend.batch.cluster import Place
from radllm_backend.batch.run import run_batch
from radllm_backend.batch.scoring import MeasuredLesion, scored
from radllm_backend.errors import RadllmError
from radllm_backend.models.model import Model
from radllm_backend.server.client import Client, ServerError

ONE = Place(workers=1, memory="1GB")


@pytest.fixture(scope="module")
def model(tiny_model: Path, tiny_base: Path) -> Model:
    return Model.load(tiny_model, tiny_base)


class Stub:
    """A model that cannot read some lesions."""

    def __init__(self, model: Model, problem: Exception) -> None:
        self.sha256, self.identity, self.settings = model.sha256, model.identity, model.settings
        self._model, self._problem = model, problem

    def predict_many(self, lesions, *, explain):
        if any(lesion.values["spoilt"] for lesion in lesions):
            raise self._problem
        return self._model.predict_many(lesions, explain=explain)


def ready(model: Model, *spoilt: bool) -> list[MeasuredLesion]:
    features = extract(read_generated(candidate(0)), model.settings)
    return [
        MeasuredLesion(
            candidate(number),
            features.model_copy(update={"values": {**features.values, "spoilt": float(bad)}}),
            seconds=0,
            since=0,
        )
        for number, bad in enumerate(spoilt)
    ]


@pytest.mark.parametrize(
    "error", [RadllmError("Nothing can be read."), MemoryError(), ServerError("malformed", "Bad.")]
)
def test_a_lesion_that_the_model_cannot_read_fails_alone(model: Model, tmp_path: Path, error: Exception) -> None:
    rows = scored(plan(Stub(model, error), tmp_path, found(1)), ready(model, False, True, False))  # type: ignore[arg-type]
    assert [row.status for row in rows] == ["done", "failed", "done"]
    assert rows[1].reason
    assert rows[1].features is not None


def test_a_server_that_is_gone_ends_the_run(model: Model, tmp_path: Path) -> None:
    gone = Stub(model, ServerError("unreachable", "The server does not answer: start it."))
    with pytest.raises(ServerError, match="does not answer"):
        scored(plan(gone, tmp_path, found(1)), ready(model, True))  # type: ignore[arg-type]


@pytest.mark.long
def test_a_server_scores_as_the_model_does(tiny_server, model: Model, tmp_path: Path) -> None:
    remote = Client(tiny_server.ready.url, token_file=tiny_server.ready.token_file).model(model.name)
    by_server = plan(model, tmp_path / "server", found(6), place=ONE)
    run_batch(plan(model, tmp_path / "here", found(6), place=ONE))
    summary = run_batch(replace(by_server, model=remote, card=None))
    assert summary.done == 6
    here, there = ({row.key: row.probability for row in kept(tmp_path / name, model)} for name in ("here", "server"))
    assert there == pytest.approx(here, abs=1e-6)
