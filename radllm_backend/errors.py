"""The one exception that users see."""

from __future__ import annotations


class RadllmError(Exception):
    """Something the user can mend: one sentence saying what is wrong, where, and what to do.

    Every door (panel, command line, server, batch) shows its text as it is, without a traceback.
    """
