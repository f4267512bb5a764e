"""How the templates of all HTML pages are read: strictly, and with everything escaped that a page is given."""

from __future__ import annotations

from collections.abc import Callable
from functools import cache

from jinja2 import Environment, PackageLoader, StrictUndefined, Template

from radllm_backend.models.base_in_words import base_in_words


@cache
def page_template(name: str, **filters: Callable[..., object]) -> Template:
    """A page's template of the folder ``templates``, with ``units``, ``base_in_words`` and the page's own filters."""
    environment = Environment(
        loader=PackageLoader("radllm_backend.reports", "templates"),
        autoescape=True,  # names of files, columns, segments and models are somebody else's text
        undefined=StrictUndefined,
        trim_blocks=True,
        lstrip_blocks=True,
    )
    environment.filters.update(units=_units, base_in_words=base_in_words, **filters)
    return environment.get_template(name)


def _units(number: float) -> str:
    """A place or a length in a drawing."""
    return f"{number:.1f}"
