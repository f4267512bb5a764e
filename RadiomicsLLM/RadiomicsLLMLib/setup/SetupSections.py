"""The two folded sections below the choice of a backend: Set up, and Doctor."""

from __future__ import annotations

from collections.abc import Callable

from ..backend.BackendEnvironment import BackendEnvironment
from ..backend.BackendPython import environmentFolder
from ..backend.Requirements import READS_ELSEWHERE, READS_HERE
from ..backend.SlicerPackages import SlicerPackages
from ..panel.PanelUi import PanelUi
from .DoctorPanel import DoctorPanel
from .SetupPanel import SetupPanel


class SetupSections:
    """Both look at Slicer's own Python and at the environment that the module makes for its local server."""

    def __init__(self, ui: PanelUi, *, starting: Callable[[], None], finished: Callable[[], None]) -> None:
        """
        Args:
            starting: called before something is installed or removed: what uses it has to end.
            finished: called whenever something was installed or removed, or failed.
        """
        environment, self.packages = BackendEnvironment(environmentFolder()), SlicerPackages()
        self._inSlicer = False
        self._doctorButton = ui.doctorButton
        self._setup = SetupPanel(
            ui.setupSectionButton.layout(), environment, self.packages, READS_ELSEWHERE, finished, starting=starting
        )
        self._doctor = DoctorPanel(ui.doctorButton.layout(), environment, self.packages)
        ui.doctorButton.connect("contentsCollapsed(bool)", self._onDoctor)

    @property
    def wheels(self) -> str:
        """The folder that holds all wheels, for a computer without a network; empty where none was chosen."""
        return self._setup.wheels

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
        self._setup.require(READS_HERE if inSlicer else READS_ELSEWHERE)

    def close(self) -> None:
        self._setup.close()
        self._doctor.close()

    def _onDoctor(self, *_arguments: object) -> None:
        if not self._doctorButton.collapsed:
            self._doctor.examine(self._inSlicer)
