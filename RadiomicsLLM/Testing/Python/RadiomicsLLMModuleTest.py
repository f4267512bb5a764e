"""What the module does in the scene; needs no model. Run by ctest in Slicer, and by pytest outside it."""

import unittest

import numpy as np
import slicer

from RadiomicsLLMLib import SegmentedVolume, SegmentResult, readResults, visibleSegmentIds, writeResults


class RadiomicsLLMModuleTest(unittest.TestCase):
    def setUp(self) -> None:
        slicer.mrmlScene.Clear()
        ijkToRas = np.diag([-0.5, -0.7, 2.0, 1.0])
        ijkToRas[:3, 3] = (12, -34, 56)
        self.voxels = np.arange(6 * 20 * 24).reshape(6, 20, 24).astype(np.int16)
        self.volume = slicer.util.addVolumeFromArray(self.voxels, ijkToRas, "volume")
        self.segmentation = slicer.mrmlScene.AddNewNodeByClass("vtkMRMLSegmentationNode", "segmentation")
        self.segmentation.CreateDefaultDisplayNodes()
        self.block = np.zeros(self.voxels.shape, np.uint8)
        self.block[2:4, 5:10, 7:15] = 1
        for segmentId in ("block", "other"):
            self.segmentation.GetSegmentation().AddEmptySegment(segmentId, f"the {segmentId}")
        slicer.util.updateSegmentBinaryLabelmapFromArray(self.block, self.segmentation, "block", self.volume)

    def test_lesionIsWhereTheSegmentIs(self) -> None:
        import SimpleITK as sitk

        lesion = SegmentedVolume(self.volume, self.segmentation, "CT").lesion("block")
        np.testing.assert_array_equal(sitk.GetArrayFromImage(lesion.image), self.voxels)
        np.testing.assert_array_equal(sitk.GetArrayFromImage(lesion.mask), self.block)
        self.assertEqual(lesion.image.GetSpacing(), (0.5, 0.7, 2.0))
        self.assertEqual(lesion.image.GetOrigin(), (-12.0, 34.0, 56.0))
        self.assertEqual(lesion.image.GetDirection(), (1, 0, 0, 0, 1, 0, 0, 0, 1))
        self.assertEqual((lesion.modality, lesion.segment), ("CT", "the block"))

    def test_sceneIsLeftAsItWas(self) -> None:
        before = slicer.mrmlScene.GetNumberOfNodes()
        SegmentedVolume(self.volume, self.segmentation).lesion("block")
        self.assertEqual(slicer.mrmlScene.GetNumberOfNodes(), before)

    def test_visibleSegments(self) -> None:
        self.assertEqual(visibleSegmentIds(self.segmentation), ["block", "other"])
        self.segmentation.GetDisplayNode().SetSegmentVisibility("block", False)
        self.assertEqual(visibleSegmentIds(self.segmentation), ["other"])

    def test_failedSegmentsHaveRows(self) -> None:
        results = [SegmentResult("block", "the block", problem="Too small."), SegmentResult("other", "the other")]
        for _ in range(2):
            writeResults(self.volume, self.segmentation, results)
        tables = slicer.util.getNodesByClass("vtkMRMLTableNode")
        self.assertEqual(len(tables), 2)
        cells = [tables[0].GetCellText(row, column) for row in range(2) for column in (0, 3)]
        self.assertEqual(cells, ["the block", "Too small.", "the other", ""])
        self.assertEqual(readResults(self.segmentation), results)
