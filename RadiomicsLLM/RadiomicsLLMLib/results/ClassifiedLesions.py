"""Lesions with their results, for what goes out of the scene."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from functools import partial
from typing import TYPE_CHECKING

import slicer
from slicer.i18n import tr as _

from ..panel.Background import Steps
from ..scene.SegmentedVolume import SegmentedVolume, Snapshot
from ..scene.VoxelCopy import Pause
from .SceneResults import volumeOfResults
from .SegmentResult import SegmentResult

if TYPE_CHECKING:
    from radllm_backend import Lesion, Prediction


class ClassifiedLesions:
    """The results of a segmentation, and the lesions that they are about: those on the volume of the run, whichever
    volume is chosen now.
    """

    def __init__(
        self, segmentationNode: slicer.vtkMRMLSegmentationNode | None, results: Sequence[SegmentResult]
    ) -> None:
        self.results = [result for result in results if result.prediction is not None]
        """Those that have a prediction."""
        self.volumeNode = volumeOfResults(segmentationNode) if segmentationNode else None
        self._source = SegmentedVolume(self.volumeNode, segmentationNode) if self.volumeNode else None

    def obstacle(self) -> str:
        """Why nothing can go out, and what to do; empty where something can."""
        if not self.results:
            return _("There is no result yet: classify a segment first.")
        if self._source is None:
            return _("The volume of these results was removed from the scene: load it, and classify again.")
        return ""

    def lesion(self, result: SegmentResult, pause: Pause) -> Steps[Callable[[], Lesion | None]]:
        """Look at the scene, in steps on the main thread; what is returned makes the lesion on any thread: None where
        the model read the radiologist's findings alone, so that nobody knows whether the image is still the same.

        Raises:
            RadllmError: nodes or segment are gone; from the function also where it is another lesion by now.
        """
        assert self._source is not None
        assert result.prediction is not None
        if result.prediction.extraction is None:
            return lambda: None
        snapshot = yield from self._source.snapshot(result.segmentId, pause)
        return partial(_asClassified, snapshot, result.prediction)


def _asClassified(snapshot: Snapshot, prediction: Prediction) -> Lesion:
    from radllm_backend import RadllmError

    lesion, extraction = snapshot.lesion(), prediction.extraction
    hashes = (lesion.image_sha256, lesion.mask_sha256)
    if extraction is None or hashes != (extraction.image_sha256, extraction.mask_sha256):
        sentence = _("“{segment}” or its volume was changed since it was classified: classify it again.")
        raise RadllmError(sentence.format(segment=snapshot.segmentName))
    return lesion
