"""What the module RadiomicsLLM is made of: one class a file. Importing it imports no backend and no torch."""

from .InProcessBackend import InProcessBackend
from .ModelChoice import ModelChoice
from .ResultPanel import ResultPanel
from .ResultTable import ResultTable
from .SegmentedVolume import SegmentedVolume, visibleSegmentIds
from .SegmentResult import SegmentResult

__all__ = [
    "InProcessBackend",
    "ModelChoice",
    "ResultPanel",
    "ResultTable",
    "SegmentResult",
    "SegmentedVolume",
    "visibleSegmentIds",
]
