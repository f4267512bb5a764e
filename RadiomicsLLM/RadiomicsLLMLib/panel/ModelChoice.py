"""Which model: one that comes with the extension, or the user's own."""

from __future__ import annotations

from collections.abc import Callable, Sequence

import ctk
import qt
from slicer.i18n import tr as _


class ModelChoice:
    """A list of models, whose last entry asks for a folder in the line below it."""

    def __init__(
        self,
        selector: qt.QComboBox,
        folderLabel: qt.QLabel,
        folderEdit: ctk.ctkPathLineEdit,
        changed: Callable[..., None],
    ) -> None:
        """
        Args:
            changed: called when another model is chosen, with arguments that do not matter.
        """
        self._selector = selector
        self._folderWidgets = (folderLabel, folderEdit)
        self._folderEdit = folderEdit
        folderEdit.filters = ctk.ctkPathLineEdit.Dirs
        selector.connect("currentIndexChanged(int)", self._showFolder)
        selector.connect("currentIndexChanged(int)", changed)
        folderEdit.connect("currentPathChanged(QString)", changed)

    def offer(self, names: Sequence[str], ownFolder: bool = True) -> None:
        """List these models; what is chosen stays so, if it can, and nothing is called.

        Args:
            ownFolder: whether a folder of the user's can be chosen too.
        """
        chosen = self._selector.currentText if self.current() else ""
        self._selector.blockSignals(True)
        self._selector.clear()
        for name in names:
            self._selector.addItem(name, name)
        if ownFolder:
            self._selector.addItem(_("My own, in a folder"), "")
        self._selector.currentIndex = max(self._selector.findText(chosen), 0)
        self._selector.blockSignals(False)
        self._showFolder()

    def current(self) -> str:
        """A model's name, or a folder; empty where none is chosen yet."""
        return self._selector.currentData or (self._folderEdit.currentPath if self._selector.count else "")

    def choose(self, name: str) -> None:
        """A model by name, where it is offered."""
        index = self._selector.findData(name)
        if name and index >= 0:
            self._selector.currentIndex = index

    def _showFolder(self, *_arguments: object) -> None:
        for widget in self._folderWidgets:
            widget.visible = self._selector.count > 0 and not self._selector.currentData
