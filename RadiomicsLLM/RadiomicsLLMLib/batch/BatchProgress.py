"""How far a batch is."""

from __future__ import annotations

import time
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

from slicer.i18n import tr as _


@dataclass
class BatchProgress:
    """Counts what a run tells of its lesions; its rate is that since the first of them, without the start before."""

    settled: int = 0
    total: int = 0
    failed: int = 0
    _first: int = 0
    _since: float = 0.0

    def add(self, event: Mapping[str, Any]) -> None:
        """A lesion has its result."""
        if not self.settled:
            self._first, self._since = event["settled"], time.monotonic()
        self.settled, self.total = event["settled"], event["total"]
        self.failed += event["status"] == "failed"

    @property
    def fraction(self) -> float:
        """Of all lesions of this run, 0..1."""
        return self.settled / self.total if self.total else 0.0

    def sentence(self) -> str:
        """For the user."""
        if not self.settled:
            return _("Starting…")
        sentence = _("Classified {settled} of {total}").format(settled=self.settled, total=self.total)
        if self.failed:
            sentence += _(", {failed} failed").format(failed=self.failed)
        seconds, done = time.monotonic() - self._since, self.settled - self._first
        if seconds <= 0 or not done:
            return sentence + "…"
        left = _remaining(seconds * (self.total - self.settled) / done)
        return sentence + _(", {rate} a minute, {left} left…").format(rate=round(60 * done / seconds), left=left)


def _remaining(seconds: float) -> str:
    if seconds < 90:
        return _("{seconds} seconds").format(seconds=round(seconds))
    if seconds < 5400:
        return _("{minutes} minutes").format(minutes=round(seconds / 60))
    return _("{hours} hours").format(hours=round(seconds / 3600))
