"""What a batch reads, and where its results go."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

import ctk
import qt
from slicer.i18n import tr as _

from ..panel.PanelWidgets import makeLineEdit, makePathEdit, makeRow

_KEY = "RadiomicsLLM/Batch"
_MODALITY_KEY, _OUTPUT_KEY = f"{_KEY}modality", f"{_KEY}output"
_MODALITIES = ("MG", "US", "CT", "MR")


class BatchChoice:
    """Lines for a DICOM database, for which of its lesions are wanted, and for a folder. All but the first are
    remembered.
    """

    def __init__(self, form: qt.QFormLayout, changed: Callable[[], None]) -> None:
        """
        Args:
            changed: called when something else is chosen.
        """
        self._changed = changed
        self._offered = ""
        self._makeWidgets()
        self._layOut(form)
        settings = qt.QSettings()
        for name, edit in self._filters.items():
            edit.text = settings.value(_KEY + name, "")
            edit.connect("textChanged(QString)", self._onChanged)
        self._modality.currentIndex = max(self._modality.findData(settings.value(_MODALITY_KEY, "")), 0)
        self._modality.connect("currentIndexChanged(int)", self._onChanged)
        self._output.currentPath = settings.value(_OUTPUT_KEY, "")
        for path in (self._database, self._output):
            path.connect("currentPathChanged(QString)", self._onChanged)

    def offerDatabase(self, folder: str) -> None:
        """Choose Slicer's open database, unless the user has chosen another one."""
        if self._database.currentPath.strip() in ("", self._offered):
            self._offered = folder
            self._database.currentPath = folder

    def arguments(self) -> list[str]:
        """Of ``radllm batch``: the database and the filter."""
        filters = {name: edit.text.strip() for name, edit in self._filters.items()}
        filters["modality"] = self._modality.currentData
        chosen = [f"--{name}={word}" for name, word in filters.items() if word]
        return [f"--dicom-database={self._database.currentPath.strip()}", *chosen]

    def output(self) -> Path:
        """The folder for the results; only to be asked for where there is no `outputObstacle`."""
        return Path(self._output.currentPath.strip())

    def databaseObstacle(self) -> str:
        """What is still to be chosen; empty where nothing is."""
        if self._database.currentPath.strip():
            return ""
        return _("Open a DICOM database in Slicer's module DICOM, or choose the folder of one.")

    def outputObstacle(self) -> str:
        """What is still to be chosen; empty where nothing is."""
        return "" if self._output.currentPath.strip() else _("Choose a folder for the results.")

    def enable(self, enabled: bool) -> None:
        """Whether another choice can be made now."""
        for widget in (self._database, self._modality, *self._filters.values(), self._output):
            widget.enabled = enabled

    def _makeWidgets(self) -> None:
        about = _("The folder of a DICOM database: that of Slicer's open one, or another. Nothing in it is changed.")
        self._database = makePathEdit("batchDatabaseEdit", ctk.ctkPathLineEdit.Dirs, about)
        self._modality = qt.QComboBox()
        self._modality.objectName = "batchModalitySelector"
        self._modality.toolTip = _("Only images of this modality.")
        for text, data in ((_("All"), ""), *((name, name) for name in _MODALITIES)):
            self._modality.addItem(text, data)
        pattern = _("Anywhere in the text; with * or ? it is a pattern for the whole text. Empty: all.")
        description, segment, day = _("All series and studies"), _("All segments"), _("YYYY-MM-DD")
        about = _("Only studies of this day or {direction}. Empty: all.")
        self._filters = {
            "description": makeLineEdit("batchDescriptionEdit", pattern, description),
            "segment": makeLineEdit("batchSegmentEdit", pattern, segment),
            "after": makeLineEdit("batchAfterEdit", about.format(direction=_("later")), day),
            "before": makeLineEdit("batchBeforeEdit", about.format(direction=_("earlier")), day),
        }
        about = _("What is in it already is not done again: the same run goes on where it was.")
        self._output = makePathEdit("batchOutputEdit", ctk.ctkPathLineEdit.Dirs, about)

    def _layOut(self, form: qt.QFormLayout) -> None:
        form.setFieldGrowthPolicy(qt.QFormLayout.AllNonFixedFieldsGrow)
        form.addRow(_("Database:"), self._database)
        form.addRow(_("Modality:"), self._modality)
        form.addRow(_("Description:"), self._filters["description"])
        form.addRow(_("Segment:"), self._filters["segment"])
        form.addRow(_("Study dates:"), makeRow(self._filters["after"], qt.QLabel(_("to")), self._filters["before"]))
        form.addRow(_("Results to:"), self._output)

    def _onChanged(self, *_arguments: object) -> None:
        settings = qt.QSettings()
        for name, edit in self._filters.items():
            settings.setValue(_KEY + name, edit.text.strip())
        settings.setValue(_MODALITY_KEY, self._modality.currentData)
        settings.setValue(_OUTPUT_KEY, self._output.currentPath.strip())
        self._changed()
