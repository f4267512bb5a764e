"""What the module RadiomicsLLM is made of: one class a file. Importing it imports no backend."""

from .backend.BackendChoice import LOCAL, PROCESS, REMOTE
from .backend.BackendPython import backendPython
from .backend.InProcessBackend import InProcessBackend
from .backend.LocalServerBackend import LocalServerBackend
from .backend.Measurer import Measurer
from .backend.RemoteBackend import RemoteBackend
from .Panel import Panel
from .panel.Background import runHere
from .results.Classification import Classification
from .results.SceneResults import readResults, writeResults
from .results.SegmentResult import SegmentResult
from .scene.SampleLesions import loadSampleLesions, registerSampleLesions
from .scene.SegmentedVolume import SegmentedVolume, visibleSegmentIds

__all__ = [
    "LOCAL",
    "PROCESS",
    "REMOTE",
    "Classification",
    "InProcessBackend",
    "LocalServerBackend",
    "Measurer",
    "Panel",
    "RemoteBackend",
    "SegmentResult",
    "SegmentedVolume",
    "backendPython",
    "loadSampleLesions",
    "readResults",
    "registerSampleLesions",
    "runHere",
    "visibleSegmentIds",
    "writeResults",
]
