"""Synthetic lesions in Slicer's Sample Data module, so that a new user sees a result after three clicks."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np
import slicer
from slicer.i18n import tr as _

from ..panel.Background import Background, Steps, runHere

if TYPE_CHECKING:
    from radllm_backend.datasets.phantoms import Phantom

_SPACING = 0.08  # millimetres, as in Resources/SampleLesions/README.md
_COLORS = ((0.56, 0.83, 0.42), (0.69, 0.48, 0.95))  # none of those that segments get by their calls
NAME = "BreastUltrasoundPhantom"


def registerSampleLesions(thumbnail: Path) -> None:
    """Offer them in the category of this module.

    Args:
        thumbnail: a picture for the button.
    """
    import SampleData

    SampleData.SampleDataLogic.registerCustomSampleDataSource(
        category="RadiomicsLLM",
        sampleName=NAME,
        thumbnailFileName=str(thumbnail),
        uris="",  # nothing is downloaded; Slicer asks for a text or a list all the same
        fileNames="",
        nodeNames=NAME,
        customDownloader=_load,
    )


def loadSampleLesions() -> list[slicer.vtkMRMLNode]:
    """As `sampleSteps`, all of it at once."""
    return runHere(sampleSteps())


def sampleSteps() -> Steps[list[slicer.vtkMRMLNode]]:
    """A picture with a smooth and a spiculated lesion, and their segmentation; both are synthetic and no patient's.

    The slice views show them.

    Returns:
        The volume, and the segmentation.
    """
    return _added((yield from Background(_("Drawing the sample lesions"), _drawn)))


def _drawn() -> list[Phantom]:
    from radllm_backend.datasets.phantoms import KINDS, make_phantom

    return [make_phantom(kind) for kind in KINDS]


def _added(phantoms: list[Phantom]) -> list[slicer.vtkMRMLNode]:
    """To the scene, and to what is shown."""
    picture = np.hstack([phantom.image for phantom in phantoms])
    ijkToRas = np.diag([-_SPACING, -_SPACING, 1, 1])
    volumeNode = slicer.util.addVolumeFromArray(picture[np.newaxis], ijkToRas, _("Ultrasound (synthetic)"))
    hierarchy = slicer.vtkMRMLSubjectHierarchyNode.GetSubjectHierarchyNode(slicer.mrmlScene)
    modality = slicer.vtkMRMLSubjectHierarchyConstants.GetDICOMSeriesModalityAttributeName()
    hierarchy.SetItemAttribute(hierarchy.CreateItem(hierarchy.GetSceneItemID(), volumeNode), modality, "US")
    segmentationNode = slicer.mrmlScene.AddNewNodeByClass("vtkMRMLSegmentationNode", _("Lesions (synthetic)"))
    segmentationNode.CreateDefaultDisplayNodes()
    segmentationNode.SetReferenceImageGeometryParameterFromVolumeNode(volumeNode)
    width = phantoms[0].image.shape[1]
    for number, phantom in enumerate(phantoms):
        mask = np.zeros(picture.shape, dtype=np.uint8)
        mask[:, number * width : (number + 1) * width] = phantom.mask > 0
        name = phantom.kind.capitalize()
        segmentationNode.GetSegmentation().AddEmptySegment(phantom.kind, name, _COLORS[number])
        slicer.util.updateSegmentBinaryLabelmapFromArray(mask[np.newaxis], segmentationNode, phantom.kind, volumeNode)
    slicer.util.setSliceViewerLayers(background=volumeNode, fit=True)
    return [volumeNode, segmentationNode]


def _load(_source: object) -> list[slicer.vtkMRMLNode]:
    """Always the same function, by which Slicer knows what is registered already."""
    return loadSampleLesions()
