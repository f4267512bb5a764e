"""Flags of commands that are made from the fields of a pydantic model: declared there, offered here."""

from __future__ import annotations

import inspect
from collections.abc import Callable, Collection
from typing import Annotated, Any, TypeVar

import typer
from pydantic import BaseModel
from pydantic.fields import FieldInfo

Command = TypeVar("Command", bound=Callable[..., None])


def offering(
    model: type[BaseModel], *names: str, but: Collection[str] = (), **defaults: Any
) -> Callable[[Command], Command]:
    """Give a command a flag for each of some fields: with the field's name, default and description.

    The command takes them as ``**options``, and leaves it to the model to check them: one sentence says what is wrong,
    from whichever door it comes.

    Args:
        model: whose fields are offered.
        names: which of them, in the model's order; all where none is named.
        but: those that are not.
        defaults: in place of the model's own.
    """
    offered = [name for name in model.model_fields if name not in but and (not names or name in names)]
    fields = {name: model.model_fields[name] for name in offered}

    def decorate(command: Command) -> Command:
        signature = inspect.signature(command, eval_str=True)
        own = [one for one in signature.parameters.values() if one.kind is not inspect.Parameter.VAR_KEYWORD]
        flags = [_flag(name, field, defaults.get(name, field.get_default())) for name, field in fields.items()]
        # What Typer reads a command's options from; mypy knows of no function that has one.
        command.__signature__ = signature.replace(parameters=[*own, *flags])  # type: ignore[attr-defined]
        command.__annotations__ = {one.name: one.annotation for one in (*own, *flags)}
        return command

    return decorate


def _flag(name: str, field: FieldInfo, default: Any) -> inspect.Parameter:
    """``--learning-rate FLOAT``, or ``--scale-free`` alone for what is on or off; a word is a string."""
    kind: Any = field.annotation if field.annotation in (bool, int, float, int | None) else str
    words = [f"--{name.replace('_', '-')}"] if kind is bool else []
    option = typer.Option(*words, help=field.description)
    annotation = Annotated[kind, option]
    return inspect.Parameter(name, inspect.Parameter.KEYWORD_ONLY, default=default, annotation=annotation)
