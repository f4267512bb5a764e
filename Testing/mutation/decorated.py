"""Lets mutmut change properties and context managers too, which it leaves out with all that is decorated.

What it fears does not hold for these two: they register nothing, and the decorator goes around the function that
chooses between the original and the mutants. Without it `Candidate.key`, all that a lesion is recognised by, would
have no mutant. Works with the mutmut of ``constraints.txt``; `check` says where another one does not do as expected.
"""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from typing import Any

import libcst as cst
from mutmut.mutation import file_mutation

PLAIN = {"property", "contextmanager"}


def include_decorated() -> None:
    """Patch mutmut, once."""
    visitor = file_mutation.MutationVisitor
    skipped, arranged = visitor._skip_node_and_children, file_mutation.function_trampoline_arrangement

    def skip(self: Any, node: cst.CSTNode) -> bool:
        return not _is_plain(node) and skipped(self, node)

    def arrange(
        function: cst.FunctionDef, mutants: Iterable[Any], class_name: str | None
    ) -> tuple[Sequence[Any], Sequence[Any], Sequence[Any], Sequence[str]]:
        if not _is_plain(function):
            return arranged(function, mutants, class_name)
        before, (chooser, *copies), after, names = arranged(function.with_changes(decorators=[]), mutants, class_name)
        outer = chooser.with_changes(decorators=[*function.decorators, *chooser.decorators])
        return before, [outer, *copies], after, names

    visitor._skip_node_and_children = skip  # type: ignore[method-assign]
    file_mutation.function_trampoline_arrangement = arrange
    check()


def check() -> None:
    """Raise RuntimeError where a property has no mutant, or one that is not called."""
    source = "class Some:\n    @property\n    def other(self):\n        return 1 + self.one\n"
    made = file_mutation.mutate_file_contents("some.py", source)
    if not made.mutant_names or "@property\n    @_mutmut_mutated" not in made.code:
        raise RuntimeError("This mutmut makes its mutants in another way: install the one of constraints.txt.")


def _is_plain(node: cst.CSTNode) -> bool:
    if not isinstance(node, cst.FunctionDef) or len(node.decorators) != 1:
        return False
    decorator = node.decorators[0].decorator
    return isinstance(decorator, cst.Name) and decorator.value in PLAIN
