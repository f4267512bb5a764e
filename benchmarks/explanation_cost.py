"""What the reasons of a prediction cost, in predictions: breast-us as it is, and with numbers in its prompt.

    python -m benchmarks.explanation_cost [--lesions 6]

Needs the base model (``radllm models pull``). Both are measured in one run on one thread, in processor time, so that
other work on the machine counts little.
"""

from __future__ import annotations

import argparse
import dataclasses
import os
import statistics
import time
from collections.abc import Callable
from pathlib import Path

from radllm_backend import Model
from radllm_backend.features.table import read_table
from radllm_backend.models.bundle import read_bundle
from radllm_backend.records import Features

TABLE = Path(__file__).resolve().parents[1] / "Resources" / "TrainingTables" / "breast-us.csv"


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--lesions", type=int, default=6)
    count = parser.parse_args().lesions
    os.environ["OMP_NUM_THREADS"] = "1"
    rows = read_table(TABLE).rows()
    rows = rows[:: max(1, len(rows) // count)][:count]
    bundle = read_bundle("breast-us")
    findings = Model(bundle)
    # The head was trained on findings: with numbers the scores mean nothing, and cost what they cost.
    numbers = Model(dataclasses.replace(bundle, card=bundle.card.model_copy(update={"style": "numbers"})))
    for name, model in (("findings", findings), ("numbers", numbers)):
        model.predict(rows[0], explain=False)  # loads it
        ratios = [measured(model, row) for row in rows]
        print(
            f"8 features as {name}: a prediction with its reasons takes {statistics.median(ratios):.1f} times as long "
            f"as one without ({min(ratios):.1f} to {max(ratios):.1f}, {len(rows)} lesions)"
        )


def measured(model: Model, row: Features) -> float:
    """In turn, and of either the quicker time: other work on the machine only ever adds to one."""
    rounds = [
        (seconds(lambda: model.predict(row, explain=False)), seconds(lambda: model.predict(row, explain=True)))
        for _ in range(2)
    ]
    alone, explained = map(min, zip(*rounds, strict=True))
    return float(explained / alone)


def seconds(work: Callable[[], object]) -> float:
    start = time.process_time()
    work()
    return time.process_time() - start


if __name__ == "__main__":
    main()
