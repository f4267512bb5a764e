"""Nothing leaves the computer before the user has seen it."""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING

import qt
import slicer
from slicer.i18n import tr as _

if TYPE_CHECKING:
    from radllm_backend import Features

_KEY = "RadiomicsLLM/ServersAllowed"


class Consent:
    """Shows exactly what will be sent to another machine, and asks, once for each address."""

    def __init__(self, address: str) -> None:
        self._address = address

    def isGiven(self) -> bool:
        """Whether the user has agreed before."""
        return self._address in _allowed()

    def ask(self, model: object, features: Sequence[Features]) -> bool:
        """Whether these lesions may be sent to a model, which is on another machine."""
        from radllm_backend.server.client import RemoteModel

        if self.isGiven():
            return True
        assert isinstance(model, RemoteModel)
        sentence = _(
            "The names and numbers below will be sent to {address}: no image, no name of a patient or a segment. "
            "Send them, and what is measured of later lesions, to this address?"
        ).format(address=self._address)
        content = "\n".join(model.sent(lesion).model_dump_json(indent=1) for lesion in features)
        agreed = slicer.util.confirmOkCancelDisplay(sentence, _("Send to another machine?"), detailedText=content)
        if agreed:
            qt.QSettings().setValue(_KEY, "\n".join([*_allowed(), self._address]))
        return bool(agreed)


def _allowed() -> list[str]:
    return str(qt.QSettings().value(_KEY, "")).splitlines()
