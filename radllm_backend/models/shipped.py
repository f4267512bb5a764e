"""The models that come with the package, by name; finding them imports nothing but the standard library."""

from __future__ import annotations

from pathlib import Path

SHIPPED = Path(__file__).parent / "classifiers"
CARD = "model.json"


def shipped_models() -> list[str]:
    """Names of the models that come with the package."""
    cards = sorted(SHIPPED.glob(f"*/{CARD}"))
    return [path.parent.name for path in cards]
