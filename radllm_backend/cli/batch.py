"""The command for every lesion of a source: ``radllm batch``."""

from __future__ import annotations

import shlex
import sys
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer
from pydantic import BaseModel

from radllm_backend.cli.lesions import LocatedBaseOption
from radllm_backend.cli.support import check_output_folder, command_line
from radllm_backend.errors import RadllmError, counted

if TYPE_CHECKING:
    from radllm_backend.batch.candidates import Found, Refusal
    from radllm_backend.batch.cluster import Place
    from radllm_backend.batch.run import Step, Summary
    from radllm_backend.batch.scoring import Scorer
    from radllm_backend.models.bundle import ModelCard

_LINE_SECONDS = 60
"""Between two lines of progress where there is no terminal."""
_MOST_UNSEGMENTED = 20
"""Series without a segmentation that are listed one by one."""
_SHOWN = ("key", "kind", "modality", "series_description", "segment", "number", "series", "source")
"""What is told of a lesion before it has a row: no path, no date."""
_NOT_TOLD = {"prediction", "features"}
"""Of a row: it is in the file."""

DatabaseOption = Annotated[Path | None, typer.Option(help="Slicer's DICOM database: its folder, with ctkDICOM.sql.")]
FolderOption = Annotated[Path | None, typer.Option(help="A folder of DICOM files, with all folders in it.")]
ManifestOption = Annotated[Path | None, typer.Option(help="CSV with the columns image and mask, as of radllm extract.")]
AfterOption = Annotated[str | None, typer.Option(help="Only studies of this day or later: YYYY-MM-DD.")]
BeforeOption = Annotated[str | None, typer.Option(help="Only studies of this day or earlier: YYYY-MM-DD.")]
WorkersOption = Annotated[int | None, typer.Option(help="Processes that measure; by default one a processor.")]
MemoryOption = Annotated[str | None, typer.Option(help="Memory of each; 2GB unless you say otherwise.")]
SchedulerOption = Annotated[str | None, typer.Option(help="Address of a Dask scheduler whose workers measure instead.")]
TokenOption = Annotated[Path | None, typer.Option(help="The file that holds the server's token.")]
CertificateOption = Annotated[
    Path | None, typer.Option(help="PEM file: the server's certificate, or its authority's, if unknown here.")
]
ExplainOption = Annotated[bool, typer.Option("--explain", help="Also why, at up to 20 times the cost of the model.")]
ReportsOption = Annotated[bool, typer.Option("--reports", help="Also each lesion's own reports, in OUT/lesions.")]


def register(app: typer.Typer) -> None:
    """Add this command to the ``radllm`` command."""
    app.command()(batch)


def batch(
    output: Annotated[Path | None, typer.Option("--output", "-o", help="Folder for the results.")] = None,
    model: Annotated[str | None, typer.Option(help="A shipped model's name or a folder; a server's by name.")] = None,
    dicom_database: DatabaseOption = None,
    dicom_folder: FolderOption = None,
    manifest: ManifestOption = None,
    modality: Annotated[str | None, typer.Option(help="Only images of this modality: MG, US, CT or MR.")] = None,
    description: Annotated[str | None, typer.Option(help="Only series or studies whose description says this.")] = None,
    after: AfterOption = None,
    before: BeforeOption = None,
    segment: Annotated[str | None, typer.Option(help="Only segments whose name says this.")] = None,
    listing: Annotated[bool, typer.Option("--list", help="Only say what would run and what not, and why.")] = False,
    workers: WorkersOption = None,
    memory: MemoryOption = None,
    scheduler: SchedulerOption = None,
    server: Annotated[
        str | None, typer.Option(help="URL of a radllm serve that scores instead of this process.")
    ] = None,
    token_file: TokenOption = None,
    certificate: CertificateOption = None,
    base_model: LocatedBaseOption = None,
    reports: ReportsOption = False,
    explain: ExplainOption = False,
    retry: Annotated[bool, typer.Option("--retry", help="Try lesions that failed before once more.")] = False,
    quiet: Annotated[bool, typer.Option("--quiet", help="Say nothing but what went wrong.")] = False,
    json_lines: Annotated[
        bool, typer.Option("--json-lines", help="One line of JSON a lesion, and one at the end.")
    ] = False,
) -> None:
    """Classify every segmented lesion of a source; the same command after a crash goes on where it was."""
    if quiet and json_lines:
        raise RadllmError("--quiet and --json-lines were given: give one of them.")
    place = None if listing else _place(workers, memory, scheduler)
    if not listing:
        output, model = _wanted(output, model)
    sources = {"--dicom-database": dicom_database, "--dicom-folder": dicom_folder, "--manifest": manifest}
    wanted = {"modality": modality, "description": description, "first_date": after, "last_date": before}
    found = _found(sources, **wanted, segment=segment)
    if place is None or output is None or model is None:
        _list(found, json_lines)
        return
    scorer, card = _scorer(model, base_model, server, token_file, certificate)
    from radllm_backend.batch.run import run_batch
    from radllm_backend.batch.scoring import BatchPlan

    plan = BatchPlan(
        found=found,
        model=scorer,
        output=output,
        place=place,
        explain=explain,
        reports=reports,
        retry=retry,
        card=card,
        command=_command(*sources.values()),
    )
    with _progress(quiet, json_lines) as on_step:
        summary = run_batch(plan, on_step)
    _end(summary, output, quiet, json_lines)


def _wanted(output: Path | None, model: str | None) -> tuple[Path, str]:
    """Where to, and by what: both are needed for more than a list."""
    if output is None or model is None:
        raise RadllmError("A batch needs --model NAME and -o OUT; --list needs neither.")
    check_output_folder(output)
    return output, model


def _place(workers: int | None, memory: str | None, scheduler: str | None) -> Place:
    from radllm_backend.batch.cluster import Place

    if scheduler and (workers is not None or memory is not None):
        raise RadllmError("--workers and --memory are of this computer: leave them out with --scheduler.")
    place = Place(workers=workers, memory=Place.memory if memory is None else memory, scheduler=scheduler)
    place.check()
    return place


def _found(sources: dict[str, Path | None], **wanted: str | None) -> Found:
    """What the one source holds, and of this what the filter leaves."""
    from radllm_backend.batch import sources as database

    given = {name: path for name, path in sources.items() if path is not None}
    if len(given) != 1:
        raise RadllmError(f"Where the lesions are is given {len(given)} times: give one of {', '.join(sources)}.")
    finders: dict[str, Callable[[Path], Found]] = {
        "--dicom-database": database.find_in_database,
        "--dicom-folder": database.find_in_folder,
        "--manifest": database.find_in_manifest,
    }
    chosen = database.Filter(**{name: word for name, word in wanted.items() if word is not None})
    [(name, path)] = given.items()
    return database.selected(finders[name](path), chosen)


def _scorer(
    model: str, base_model: str | None, server: str | None, token_file: Path | None, certificate: Path | None
) -> tuple[Scorer, ModelCard | None]:
    """A model here, ready to score, or one of a server; with its card, which a server does not give out."""
    if server is None:
        from radllm_backend.models.model import Model

        for option, file in (("--token-file", token_file), ("--certificate", certificate)):
            if file is not None:
                raise RadllmError(f"{option} is for --server: give both or neither.")
        chosen = Model.load(model, base_model)
        _ = (chosen.settings, chosen.reader)  # what is wrong with them is said before the hours rather than after
        return chosen, chosen.card
    from radllm_backend.server.client import Client

    if base_model is not None:
        raise RadllmError("--base-model is for a model of this process: leave it out with --server.")
    return Client(server, token_file=token_file, certificate=certificate).model(model), None


def _command(*sources: Path | None) -> str:
    """The command as it was given, without the name of the source: a folder may be called as a patient is."""
    names = {source.name for source in sources if source is not None}
    words = shlex.split(command_line())
    return shlex.join("SOURCE" if word.rpartition("=")[2] in names else word for word in words)


def _list(found: Found, json_lines: bool) -> None:
    """What would run, then what would not."""
    from radllm_backend.batch.results import title_of

    if json_lines:
        for candidate in found.candidates:
            words = {"lesion": title_of(candidate), **candidate.model_dump(include=set(_SHOWN))}
            _tell("candidate", words)
        for refusal in found.refusals:
            _tell("left-out", refusal)
        for refusal in _shortened(found.unsegmented):
            _tell("unsegmented", refusal)
        return
    from rich.console import Console
    from rich.table import Table
    from rich.text import Text

    table = Table("Lesion or file", "Modality", "Runs")
    for candidate in found.candidates:
        table.add_row(Text(title_of(candidate)), candidate.modality, "yes")
    for refusal in [*found.refusals, *_shortened(found.unsegmented)]:
        table.add_row(Text(refusal.what), refusal.modality, Text(f"no: {refusal.reason}"))
    Console().print(table)
    typer.echo(f"{counted(len(found.candidates), 'lesion')} would run; {len(found.refusals)} left out.")
    if found.unsegmented:
        typer.echo(f"{len(found.unsegmented)} image series have no segmentation.")


def _shortened(unsegmented: list[Refusal]) -> list[Refusal]:
    """The first, and how many more there are: a database may hold thousands."""
    from radllm_backend.batch.candidates import Refusal

    more = len(unsegmented) - _MOST_UNSEGMENTED
    if more <= 0:
        return unsegmented
    return [
        *unsegmented[:_MOST_UNSEGMENTED],
        Refusal(what=f"{more} more image series", reason="They have no segmentation either."),
    ]


def _tell(event: str, content: BaseModel | dict[str, Any], **more: object) -> None:
    """One line of JSON on standard output."""
    import json

    plain = content.model_dump(mode="json", exclude=_NOT_TOLD) if isinstance(content, BaseModel) else content
    typer.echo(json.dumps({"event": event, **plain, **more}))


@contextmanager
def _progress(quiet: bool, json_lines: bool) -> Iterator[Callable[[Step], None]]:
    """What a run is told with: nothing, JSON, a progress bar, or lines where standard error is no terminal."""
    from radllm_backend.cli.console import progress_bar

    if quiet:
        yield lambda step: None
        return
    if json_lines:
        yield _tell_step
        return
    with progress_bar() as bar:
        if bar.disable:
            yield _log_now_and_then()
            return
        task = bar.add_task("Classifying", total=None)
        yield lambda step: bar.update(task, description=_rate(step), completed=step.settled, total=step.total)


def _tell_step(step: Step) -> None:
    for row in step.rows:
        _tell("lesion", row, settled=step.settled, total=step.total)


def _rate(step: Step) -> str:
    return f"Classifying {step.settled} of {step.total}, {step.rate:.0f} a minute"


def _log_now_and_then() -> Callable[[Step], None]:
    last = time.monotonic()

    def log(step: Step) -> None:
        nonlocal last
        if time.monotonic() - last >= _LINE_SECONDS:
            last = time.monotonic()
            typer.echo(f"{_rate(step)}, {step.seconds_left / 60:.0f} minutes left", err=True)

    return log


def _end(summary: Summary, output: Path, quiet: bool, json_lines: bool) -> None:
    """How it went; a run that a signal ended says how to go on."""
    from radllm_backend.batch.page import SUMMARY
    from radllm_backend.models.prediction import RESEARCH_USE_ONLY

    if json_lines:
        _tell("summary", summary)
    if summary.stopped:
        typer.echo(
            f"radllm: Stopped with {summary.kept + summary.done + summary.failed} of "
            f"{counted(summary.lesions, 'lesion')} kept: the same command goes on.",
            err=True,
        )
        sys.exit(130)  # nothing more is to be said
    if summary.incomplete and not json_lines:
        typer.echo(
            f"radllm: {summary.incomplete} of the lesions kept from before have none of the reports or reasons asked "
            "for, which are made with the prediction: give another output folder to have them of all.",
            err=True,
        )
    if not quiet and not json_lines:
        typer.echo(
            f"{counted(summary.lesions, 'lesion')}: {summary.done} classified now, {summary.failed} failed, "
            f"{summary.kept} kept from before; {summary.left_out} left out.\nSummary: {output / SUMMARY}\n"
            f"{RESEARCH_USE_ONLY}"
        )
