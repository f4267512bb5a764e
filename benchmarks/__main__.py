"""``python -m benchmarks``: how fast this computer is on each part of a lesion's way, beside the usual way.

``--release FOLDER`` compares with an earlier release too. FOLDER is its checkout, such as one that
``git worktree add FOLDER COMMIT`` makes, in which ``python3 develop.py demo`` was run and the packages of its extra
``server`` were installed. This tree is run by the Python that runs the benchmark.
"""

from __future__ import annotations

import json
import sys
import tempfile
from pathlib import Path
from typing import Annotated

import typer

from benchmarks.comparison import Comparison, machine, table
from benchmarks.subjects import AGAINST_RELEASE, SUBJECTS, measure
from radllm_backend.cli.support import check_output_file
from radllm_backend.errors import RadllmError
from radllm_backend.files import write_atomically


def bench(
    subjects: Annotated[list[str] | None, typer.Argument(help=f"Any of {', '.join(SUBJECTS)}; all by default.")] = None,
    release: Annotated[
        Path | None, typer.Option(help=f"Checkout of a release, with its .venv: for {' and '.join(AGAINST_RELEASE)}.")
    ] = None,
    runs: Annotated[int, typer.Option(help="Rounds, each with both ways in turn.")] = 5,
    json_file: Annotated[Path | None, typer.Option("--json", help="JSON file for the values of every round.")] = None,
    table_file: Annotated[Path | None, typer.Option("--table", help="Markdown file for the table.")] = None,
) -> None:
    """Measure speed, memory and disk as ratios to the usual way or to a release, with medians and spread."""
    for file in (json_file, table_file):
        if file:
            check_output_file(file)

    def tell(what: str) -> None:
        typer.echo(what, err=True)

    found: list[Comparison] = []
    chosen = subjects or [name for name in SUBJECTS if release or name not in AGAINST_RELEASE]
    with tempfile.TemporaryDirectory(prefix="radllm-bench-") as work:
        for comparison in measure(chosen, runs, Path(work), tell, release):
            tell(f"{comparison.subject}, {comparison.case}: then / now {comparison.ratio:.3g}")
            found.append(comparison)
            if json_file:  # after each: a long run that is stopped has told what it knows
                content = {"machine": machine(), "comparisons": [one.model_dump() for one in found]}
                write_atomically(json_file, json.dumps(content, indent=1) + "\n")
            if table_file:
                write_atomically(table_file, f"{machine()}\n\n{table(found)}")
    typer.echo(table(found), nl=False)


if __name__ == "__main__":
    try:
        typer.run(bench)
    except RadllmError as error:
        sys.exit(f"python -m benchmarks: {error}")
