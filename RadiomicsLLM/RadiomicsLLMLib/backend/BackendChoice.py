"""Where the language model runs."""

from __future__ import annotations

from collections.abc import Callable
from typing import Final, Literal, TypedDict

import qt
from slicer.i18n import tr as _

from .Backend import Backend
from .InProcessBackend import InProcessBackend
from .LocalServerBackend import LocalServerBackend
from .RemoteBackend import RemoteBackend

_KEY, _ADDRESS_KEY = "RadiomicsLLM/Backend", "RadiomicsLLM/ServerAddress"
LOCAL: Final = "local"
PROCESS: Final = "process"
REMOTE: Final = "remote"
BackendName = Literal["local", "process", "remote"]


class Backends(TypedDict):
    """By their names: there is one of each kind."""

    local: LocalServerBackend
    process: InProcessBackend
    remote: RemoteBackend


class BackendChoice:
    """A list of the three backends, and the lines for the address and the token of another machine's.

    In this Slicer is the first, and the choice of whoever made none.

    The choice and the address are remembered, the token is not.
    """

    def __init__(
        self,
        selector: qt.QComboBox,
        remoteWidgets: qt.QWidget,
        addressEdit: qt.QLineEdit,
        tokenEdit: qt.QLineEdit,
        backends: Backends,
        changed: Callable[[], None],
    ) -> None:
        """
        Args:
            changed: called when another backend, address or token is chosen.
        """
        self._selector, self._remoteWidgets = selector, remoteWidgets
        self._addressEdit, self._tokenEdit = addressEdit, tokenEdit
        self._backends, self._changed = backends, changed
        for text, key in (
            (_("In this Slicer"), PROCESS),
            (_("Local server (a process of its own)"), LOCAL),
            (_("Another machine"), REMOTE),
        ):
            selector.addItem(text, key)
        settings = qt.QSettings()
        selector.currentIndex = max(selector.findData(settings.value(_KEY, PROCESS)), 0)
        addressEdit.text = settings.value(_ADDRESS_KEY, "")
        self._showRemote()
        selector.connect("currentIndexChanged(int)", self._onChanged)
        addressEdit.connect("textChanged(QString)", self._onChanged)
        tokenEdit.connect("textChanged(QString)", self._onChanged)

    def current(self) -> Backend:
        """The chosen backend."""
        name: BackendName = self._selector.currentData
        backend = self._backends[name]
        if isinstance(backend, RemoteBackend):
            backend.use(self._addressEdit.text.strip(), self._tokenEdit.text.strip())
        return backend

    def _onChanged(self, *_arguments: object) -> None:
        settings = qt.QSettings()
        settings.setValue(_KEY, self._selector.currentData)
        settings.setValue(_ADDRESS_KEY, self._addressEdit.text.strip())
        self._showRemote()
        self._changed()

    def _showRemote(self) -> None:
        self._remoteWidgets.visible = self._selector.currentData == REMOTE
