"""What type checkers know of Slicer: the functions and base classes in the other files, and ``Any`` for the rest."""

from typing import Any

def __getattr__(name: str) -> Any: ...
