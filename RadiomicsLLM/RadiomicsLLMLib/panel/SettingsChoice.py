"""With which settings features are extracted."""

from __future__ import annotations

from collections.abc import Callable

import ctk
import qt
from slicer.i18n import tr as _

PRESETS = ("mammography", "breast-ultrasound", "ct", "mr")
_OWN = "own"


class SettingsChoice:
    """Those that the model was trained with, or, for those who know why, a preset or a PyRadiomics parameter file."""

    def __init__(self, selector: qt.QComboBox, fileEdit: ctk.ctkPathLineEdit, changed: Callable[..., None]) -> None:
        """
        Args:
            changed: called when other settings are chosen, with arguments that do not matter.
        """
        self._selector, self._fileEdit = selector, fileEdit
        fileEdit.filters = ctk.ctkPathLineEdit.Files
        selector.addItem(_("As the model was trained"), "")
        for preset in PRESETS:
            selector.addItem(_("Preset {preset}").format(preset=preset), preset)
        selector.addItem(_("My own parameter file"), _OWN)
        selector.connect("currentIndexChanged(int)", self._showFile)
        selector.connect("currentIndexChanged(int)", changed)
        fileEdit.connect("currentPathChanged(QString)", changed)
        self._showFile()

    def current(self) -> str | None:
        """A preset's name or a file's path; None for the model's own settings."""
        chosen = self._selector.currentData
        return (self._fileEdit.currentPath if chosen == _OWN else chosen) or None

    def obstacle(self) -> str:
        """What is still to be chosen; empty where nothing is."""
        if self._selector.currentData == _OWN and not self._fileEdit.currentPath:
            return _("Choose your PyRadiomics parameter file.")
        return ""

    def _showFile(self, *_arguments: object) -> None:
        self._fileEdit.visible = self._selector.currentData == _OWN
