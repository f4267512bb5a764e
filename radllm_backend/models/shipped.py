"""The models that come with the package, by name; finding them imports nothing but the standard library."""

from __future__ import annotations

import json
from pathlib import Path

SHIPPED = Path(__file__).parent / "classifiers"
CARD = "model.json"


def shipped_models(*, of_images: bool = False) -> list[str]:
    """Names of the models that come with the package.

    Args:
        of_images: only those that read features of an image, and not the radiologist's descriptors alone.
    """
    cards = sorted(SHIPPED.glob(f"*/{CARD}"))
    return [path.parent.name for path in cards if not of_images or _settings(path)]


def _settings(card: Path) -> str | None:
    settings: str | None = json.loads(card.read_text(encoding="utf-8"))["settings_name"]
    return settings
