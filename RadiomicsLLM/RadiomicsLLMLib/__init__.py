"""What the module RadiomicsLLM is made of: one class a file. Importing it imports no backend and no torch."""

from .BackendChoice import LOCAL, PROCESS, REMOTE
from .BackendPython import backendPython
from .Background import runHere
from .Classification import Classification
from .InProcessBackend import InProcessBackend
from .LocalServerBackend import LocalServerBackend
from .Panel import Panel
from .RemoteBackend import RemoteBackend
from .SampleLesions import loadSampleLesions, registerSampleLesions
from .SceneResults import readResults, writeResults
from .SegmentedVolume import SegmentedVolume, visibleSegmentIds
from .SegmentResult import SegmentResult

__all__ = [
    "LOCAL",
    "PROCESS",
    "REMOTE",
    "Classification",
    "InProcessBackend",
    "LocalServerBackend",
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
