"""Where reports go, and in which formats."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from pathlib import Path

import ctk
import qt
from slicer.i18n import tr as _

_FOLDER_KEY, _FORMATS_KEY = "RadiomicsLLM/ExportFolder", "RadiomicsLLM/ExportFormats"
_AT_FIRST = "json,csv,html,pdf"


class ExportChoice:
    """A line for a folder and a box a format; both are remembered."""

    def __init__(
        self, folderEdit: ctk.ctkPathLineEdit, boxes: Mapping[str, qt.QCheckBox], changed: Callable[[], None]
    ) -> None:
        """
        Args:
            boxes: by the formats' names in `radllm_backend.reports.files`.
            changed: called when another folder or other formats are chosen.
        """
        self._folderEdit, self._boxes, self._changed = folderEdit, boxes, changed
        settings = qt.QSettings()
        folderEdit.filters = ctk.ctkPathLineEdit.Dirs
        folderEdit.currentPath = settings.value(_FOLDER_KEY, "")
        # One text: a list of one entry would not come back as a list.
        remembered = settings.value(_FORMATS_KEY, _AT_FIRST).split(",")
        folderEdit.connect("currentPathChanged(QString)", self._onChanged)
        for name, box in boxes.items():
            box.checked = name in remembered
            box.connect("toggled(bool)", self._onChanged)

    def folder(self) -> Path:
        """The folder; only to be asked for where there is no `obstacle`."""
        return Path(self._folderEdit.currentPath.strip())

    def formats(self) -> tuple[str, ...]:
        """The names of the ticked formats."""
        return tuple(name for name, box in self._boxes.items() if box.checked)

    def obstacle(self) -> str:
        """What is still to be chosen; empty where nothing is."""
        if not self._folderEdit.currentPath.strip():
            return _("Choose a folder under “Folder and formats”.")
        if not self.formats():
            return _("Tick a format under “Folder and formats”.")
        return ""

    def _onChanged(self, *_arguments: object) -> None:
        settings = qt.QSettings()
        settings.setValue(_FOLDER_KEY, self._folderEdit.currentPath.strip())
        settings.setValue(_FORMATS_KEY, ",".join(self.formats()))
        self._changed()
