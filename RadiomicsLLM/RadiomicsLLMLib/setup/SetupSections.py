"""The two folded sections below the choice of a backend: Set up, and Doctor."""

from __future__ import annotations

from collections.abc import Callable

from ..backend.BackendEnvironment import BackendEnvironment
from ..backend.BackendPython import environmentFolder
from ..backend.Requirements import DICOM_PACKAGES, EXTRACTION_PACKAGES, MODEL_PACKAGES, REPORT_PACKAGES
from ..backend.SlicerPackages import SlicerPackages
from ..panel.PanelUi import PanelUi
from .DoctorPanel import DoctorPanel
from .SetupPanel import SetupPanel

_ALWAYS = {**EXTRACTION_PACKAGES, **REPORT_PACKAGES, **DICOM_PACKAGES}
_IN_SLICER = {**_ALWAYS, **MODEL_PACKAGES, "torch": "torch>=2.6"}


class SetupSections:
    """Both look at Slicer's own Python and at the environment that the module makes for its local server."""

    def __init__(self, ui: PanelUi, *, starting: Callable[[], None], finished: Callable[[], None]) -> None:
        """
        Args:
            starting: called before something is installed or removed: what uses it has to end.
            finished: called whenever something was installed or removed, or failed.
        """
        environment, packages = BackendEnvironment(environmentFolder()), SlicerPackages()
        self._inSlicer = False
        self._doctorButton = ui.doctorButton
        self._setup = SetupPanel(
            ui.setupSectionButton.layout(), environment, packages, _ALWAYS, finished, starting=starting
        )
        self._doctor = DoctorPanel(ui.doctorButton.layout(), environment, packages)
        ui.doctorButton.connect("contentsCollapsed(bool)", self._onDoctor)

    @property
    def isExamining(self) -> bool:
        """Whether the doctor is still looking."""
        return self._doctor.isExamining

    def refresh(self, inSlicer: bool) -> None:
        """Look again at what is installed.

        Args:
            inSlicer: whether the language model shall run in Slicer itself.
        """
        self._inSlicer = inSlicer
        self._setup.require(_IN_SLICER if inSlicer else _ALWAYS)

    def close(self) -> None:
        self._setup.close()
        self._doctor.close()

    def _onDoctor(self, *_arguments: object) -> None:
        if not self._doctorButton.collapsed:
            self._doctor.examine(self._inSlicer)
