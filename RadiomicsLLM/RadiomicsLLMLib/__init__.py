"""What the module RadiomicsLLM is made of: one class a file. Importing it imports no backend."""

from .backend.BackendChoice import LOCAL, PROCESS, REMOTE
from .backend.BackendPython import backendPython
from .backend.InProcessBackend import InProcessBackend
from .backend.LocalServerBackend import LocalServerBackend
from .backend.Measurer import Measurer
from .backend.RemoteBackend import RemoteBackend
from .Panel import Panel
from .panel.Background import runHere
from .panel.RadiomicsLLMSubjectHierarchyPlugin import (
    RadiomicsLLMSubjectHierarchyPlugin,
    registerSubjectHierarchyPlugin,
)
from .results.Classification import Classification
from .results.SceneResults import readResults, writeResults
from .results.SegmentResult import SegmentResult
from .scene.SampleLesions import loadSampleLesions, registerSampleLesions
from .scene.SegmentedVolume import SegmentedVolume, visibleSegmentIds
from .scene.SegmentFindings import readFindings

__all__ = [
    "LOCAL",
    "PROCESS",
    "REMOTE",
    "Classification",
    "InProcessBackend",
    "LocalServerBackend",
    "Measurer",
    "Panel",
    "RadiomicsLLMSubjectHierarchyPlugin",
    "RemoteBackend",
    "SegmentResult",
    "SegmentedVolume",
    "backendPython",
    "loadSampleLesions",
    "readFindings",
    "readResults",
    "registerSampleLesions",
    "registerSubjectHierarchyPlugin",
    "runHere",
    "visibleSegmentIds",
    "writeResults",
]
