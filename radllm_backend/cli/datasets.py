"""The commands ``radllm dataset ...``: data sets in their published layout as a manifest.

A file of `radllm_backend.datasets` that defines a function ``command`` is a data set, and registered by being there:
``radllm dataset NAME`` is made of that function. Its first parameter is ``root``, the data set's folder; ``masks`` is
the folder for masks that are made, and ``progress`` is told what happens, if it has them; all others are flags, as
Typer reads them. It returns a `collecting.Manifest`. The file is imported only when its command is used.
"""

from __future__ import annotations

import ast
import contextlib
import inspect
import pkgutil
from collections import Counter
from collections.abc import Callable, Iterator, Sequence
from importlib import import_module
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer
from typer.core import TyperCommand, TyperGroup

from radllm_backend import datasets
from radllm_backend.cli.support import check_output_file, describing
from radllm_backend.errors import counted

if TYPE_CHECKING:
    from radllm_backend.datasets.collecting import Manifest

_COMMAND = "command"
_REASONS_SHOWN = 3

ManifestFileOption = Annotated[Path, typer.Option("--output", "-o", help="CSV file for the manifest.")]
MasksOption = Annotated[
    Path | None, typer.Option(help="Folder for the masks that are made; by default NAME-masks beside NAME.csv.")
]


class DataSetCommand(TyperCommand):
    """The command of a data set: until it is used, only its name and what it says of itself are known."""

    def __init__(self, name: str, module: str, words: str) -> None:
        super().__init__(name, help=words)
        self._module = module

    def make_context(self, info_name: str | None, args: list[str], *more: Any, **named: Any) -> Any:
        """That of the command itself, which does the rest."""
        single = typer.Typer(add_completion=False, pretty_exceptions_enable=False, rich_markup_mode=None)
        single.command(self.name)(_writing(getattr(import_module(self._module), _COMMAND)))
        return typer.main.get_command(single).make_context(info_name, args, *more, **named)


class DataSetGroup(TyperGroup):
    """The commands below, and one for each data set, which are looked for when one of them is asked for."""

    def make_context(self, *given: Any, **named: Any) -> Any:
        self.commands = {**{one.name or "": one for one in _found()}, **self.commands}
        return super().make_context(*given, **named)


datasets_app = typer.Typer(cls=DataSetGroup, help="Data sets in their published layout, as a manifest.")


@datasets_app.command("manifest")
def own_manifest(
    file: Annotated[Path, typer.Argument(help="Your own CSV with the columns image and mask.")],
    output: ManifestFileOption,
    target: Annotated[
        str | None, typer.Option(help="Column that says benign or malignant; 'label' where there is one.")
    ] = None,
    group: Annotated[
        str | None, typer.Option(help="Column that names the patient; 'patient' where there is one.")
    ] = None,
) -> None:
    """Your own lesions: check a manifest before the images are read, and write it with absolute paths."""
    from radllm_backend.datasets.manifest import check_manifest

    check_output_file(output)
    _write(output, check_manifest(file.resolve(), target, group), [])


@datasets_app.command()
def phantoms(
    output: Annotated[Path, typer.Option("--output", "-o", help="Folder for the images and masks.")],
) -> None:
    """Two synthetic ultrasound-like lesions, one smooth and oval, one spiculated."""
    from radllm_backend.datasets.phantoms import write_phantoms

    write_phantoms(output)
    typer.echo(f"Two synthetic lesions: {output}")


def _found() -> Iterator[DataSetCommand]:
    """Of each file that defines a command; looked into, not imported: reading images takes heavy packages."""
    for module in pkgutil.iter_modules(datasets.__path__, f"{datasets.__name__}."):
        spec = module.module_finder.find_spec(module.name, None)
        source = Path(spec.origin).read_text(encoding="utf-8") if spec and spec.origin else ""
        for node in ast.parse(source).body:
            if isinstance(node, ast.FunctionDef) and node.name == _COMMAND:
                name = module.name.rpartition(".")[2].replace("_", "-")
                yield DataSetCommand(name, module.name, ast.get_docstring(node) or "")


def _writing(read: Callable[..., Manifest]) -> Callable[..., None]:
    """A data set's function as a command: with an output, where what it returns is written."""
    signature = inspect.signature(read, eval_str=True)
    known = signature.parameters

    def run(root: Path, output: Path, **given: Any) -> None:
        check_output_file(output)
        if "masks" in known:
            given["masks"] = _masks_folder(given["masks"], output)
        with describing(in_logs=False) as progress:
            told = {"progress": progress} if "progress" in known else {}
            found = read(root.resolve(), **given, **told)
        _write(output, found.rows, found.left_out)

    own = {"output": inspect.Parameter("output", inspect.Parameter.KEYWORD_ONLY, annotation=ManifestFileOption)}
    if "masks" in known:
        own["masks"] = inspect.Parameter("masks", inspect.Parameter.KEYWORD_ONLY, default=None, annotation=MasksOption)
    root, *flags = (one for name, one in known.items() if name not in ("masks", "progress"))
    parameters = [root, *own.values(), *(one.replace(kind=inspect.Parameter.KEYWORD_ONLY) for one in flags)]
    run.__doc__ = read.__doc__
    # What Typer reads a command's options from; mypy knows of no function that has one.
    run.__signature__ = inspect.Signature(parameters)  # type: ignore[attr-defined]
    run.__annotations__ = {one.name: one.annotation for one in parameters}
    return run


def _write(output: Path, rows: Sequence[dict[str, str]], left_out: Sequence[str]) -> None:
    """The manifest, and what is not in it: the reasons on standard error, every lesion in a file beside it."""
    from radllm_backend.datasets.collecting import reasons
    from radllm_backend.features.table import write_csv
    from radllm_backend.files import write_atomically

    write_csv(output, [list(rows[0]), *(list(row.values()) for row in rows)])
    beside = output.with_name(f"{output.stem}-left-out.txt")
    with contextlib.suppress(OSError):
        beside.unlink()  # of an earlier run
    if left_out:
        write_atomically(beside, "\n".join(left_out) + "\n")
        typer.echo(f"{len(left_out)} left out, listed in {beside}:", err=True)
        for reason, count in reasons(left_out)[:_REASONS_SHOWN]:
            typer.echo(f"  {count} × {reason}", err=True)
    labels = Counter(row.get("label", "") for row in rows)
    counts = "".join(f", {count} {label}" for label, count in sorted(labels.items()) if label)
    typer.echo(f"{counted(len(rows), 'lesion')}{counts}: {output}")


def _masks_folder(given: Path | None, output: Path) -> Path:
    return (given or output.with_name(f"{output.stem}-masks")).resolve()
