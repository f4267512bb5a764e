"""How many threads the model reads on, beside workers that have theirs."""

from __future__ import annotations

from concurrent.futures import ThreadPoolExecutor
from types import SimpleNamespace

import pytest

torch = pytest.importorskip("torch")
pytest.importorskip("distributed")

from radllm_backend.batch import cluster as batch_cluster
from radllm_backend.batch import run as batch
from radllm_backend.batch.cluster import Place


@pytest.mark.parametrize(
    ("processors", "place", "spare"),
    [
        (2, Place(), 1),
        (2, Place(workers=1), 1),
        (8, Place(workers=2), 6),
        (8, Place(), 2),
        (8, Place(scheduler="tcp://10.0.0.1:8786"), 8),
        (1, Place(), 1),
    ],
)
def test_the_model_reads_on_the_threads_that_the_workers_leave(monkeypatch, processors, place, spare):
    monkeypatch.setattr(batch_cluster, "_PROCESSORS", processors)
    assert place.spare_threads == spare


def test_scoring_keeps_to_its_threads_and_leaves_other_threads_theirs(monkeypatch):
    monkeypatch.setattr(batch_cluster, "_PROCESSORS", 2)
    monkeypatch.setattr(batch, "scored", lambda plan, lesions: [torch.get_num_threads()])
    before = torch.get_num_threads()
    with ThreadPoolExecutor(1) as scorer:
        seen = scorer.submit(batch._scored_beside_workers, SimpleNamespace(place=Place(workers=2)), []).result()
    assert (seen, torch.get_num_threads()) == ([1], before)
