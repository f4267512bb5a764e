"""What the panel asks of the module's logic."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING, Protocol

import slicer

if TYPE_CHECKING:
    from ..backend.Backend import Backend
    from ..backend.BackendChoice import Backends
    from ..backend.Measurer import Measurer
    from ..panel.Background import Steps
    from ..scene.SegmentedVolume import SegmentedVolume
    from .Classification import Approve
    from .SegmentResult import SegmentResult


class PanelLogic(Protocol):
    """Scripts use it too."""

    @property
    def backends(self) -> Backends: ...

    @property
    def measurer(self) -> Measurer: ...

    def steps(
        self,
        source: SegmentedVolume,
        segmentIds: Sequence[str],
        model: str,
        *,
        settings: str | None,
        backend: Backend,
        approve: Approve | None = None,
        findings: Mapping[str, Mapping[str, str]] | None = None,
    ) -> Steps[list[SegmentResult]]:
        """Classify segments of a volume, and keep the results in the scene."""

    def getParameterNode(self) -> slicer.vtkMRMLScriptedModuleNode:
        """The scene's only node of the module's parameters, made if need be."""
