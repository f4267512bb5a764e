"""The one exception that users see, and what its sentences are made of."""

from __future__ import annotations


class RadllmError(Exception):
    """Something the user can mend: one sentence saying what is wrong, where, and what to do.

    Every door (panel, command line, server, batch) shows its text as it is, without a traceback.
    """


def counted(number: int, noun: str) -> str:
    """``1 lesion``, ``2 lesions``.

    Args:
        noun: one word or several, whose plural ends in s.
    """
    return f"{number} {noun}" if number == 1 else f"{number} {noun}s"
