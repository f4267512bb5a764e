"""Other programs that are started: on Windows none of them opens a window."""

from __future__ import annotations

import subprocess
import sys
from typing import Any


def without_window() -> dict[str, Any]:
    """What `subprocess.run` and `subprocess.Popen` take besides, so that on Windows no console window opens.

    Slicer has no console that a program could write in: it would get one of its own, and closing that would end it.
    """
    if sys.platform == "win32":
        return {"creationflags": subprocess.CREATE_NO_WINDOW}
    return {}
