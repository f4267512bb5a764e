"""A stand-in for Slicer's DICOM database: it keeps files, and knows them by their UIDs.

Checked against ``Libs/DICOM/Core/ctkDICOMDatabase.h`` of CTK and ``Modules/Scripted/DICOMLib/DICOMUtils.py`` of Slicer,
of their main branches. ``instances`` and ``insert`` are for tests, and so are ``refuse`` and ``plugins``: the real one
has none of these, or takes other arguments.
"""

from __future__ import annotations

import shutil
import tempfile
from pathlib import Path
from typing import Any

import slicer

PLUGINS = ("DICOMScalarVolumePlugin", "DICOMSegmentationPlugin", "DicomRtImportExportPlugin")
"""In ``slicer.modules.dicomPlugins`` of Slicer 5.12 with SlicerRT; the second is QuantitativeReporting's in 5.10."""


class DicomDatabase:
    """Open and empty at first; what is copied into it lies in a folder that ends with the process."""

    def __init__(self) -> None:
        self.isOpen = True
        self.refuse = ""
        """The import takes no file of this name."""
        self.plugins = {"SEG", "RTSTRUCT"}
        """The kinds of segmentation that can be loaded."""
        self._folder = tempfile.TemporaryDirectory()
        self.databaseDirectory = self._folder.name
        self._files: dict[str, str] = {}
        self._series: dict[str, str] = {}

    def fileForInstance(self, instance: str) -> str:
        """Empty where there is none, as in Slicer."""
        return self._files.get(instance, "")

    def filesForSeries(self, series: str) -> list[str]:
        return [self._files[instance] for instance, own in self._series.items() if own == series]

    def seriesForFile(self, file: str) -> str:
        return next((self._series[instance] for instance, own in self._files.items() if own == file), "")

    def instances(self) -> list[str]:
        return list(self._files)

    def insert(self, path: Path, copy: bool) -> None:
        import pydicom

        header = pydicom.dcmread(path, stop_before_pixels=True)
        if path.name == self.refuse:
            return
        kept = Path(self._folder.name) / f"{header.SOPInstanceUID}.dcm"
        self._files[header.SOPInstanceUID] = str(shutil.copy(path, kept) if copy else path)
        self._series[header.SOPInstanceUID] = header.SeriesInstanceUID

    def removeSeries(self, series: str) -> bool:
        gone = [instance for instance, own in self._series.items() if own == series]
        for instance in gone:
            del self._files[instance], self._series[instance]
        return bool(gone)


class DICOMUtils:
    """Of Slicer's ``DICOMLib``: what it refuses, the real one refuses."""

    @staticmethod
    def importDicom(dicomDataDir: str, dicomDatabase: Any = None, copyFiles: bool = False) -> bool:
        """True whatever became of the files, as in Slicer."""
        database = dicomDatabase or slicer.dicomDatabase
        for path in sorted(Path(dicomDataDir).rglob("*.dcm")):
            database.insert(path, copyFiles)
        return True

    @staticmethod
    def loadSeriesByUID(seriesUIDs: list[str]) -> list[str]:
        """The IDs of the nodes that were made: an empty volume of an image, empty segments of a segmentation."""
        import pydicom

        if not isinstance(seriesUIDs, list) or not seriesUIDs:
            raise ValueError("series UIDs must be given, as a list")
        if not slicer.dicomDatabase.isOpen:
            raise OSError("the DICOM database cannot be accessed")
        loaded = []
        for series in seriesUIDs:
            files = slicer.dicomDatabase.filesForSeries(series)
            if not files:  # nothing to load
                continue
            header = pydicom.dcmread(files[0])
            if header.Modality not in ("SEG", "RTSTRUCT"):
                node = slicer.mrmlScene.AddNewNodeByClass("vtkMRMLScalarVolumeNode", header.SeriesDescription)
            elif header.Modality in slicer.dicomDatabase.plugins:
                node = _loaded_segmentation(header)
            else:
                continue
            hierarchy = slicer.vtkMRMLSubjectHierarchyNode.GetSubjectHierarchyNode(slicer.mrmlScene)
            hierarchy.SetItemUID(hierarchy.CreateItem(hierarchy.GetSceneItemID(), node), "DICOM", series)
            loaded.append(node.GetID())
        return loaded


def _loaded_segmentation(header: Any) -> Any:
    node = slicer.mrmlScene.AddNewNodeByClass("vtkMRMLSegmentationNode", header.SeriesDescription)
    node.CreateDefaultDisplayNodes()
    for segment in header.SegmentSequence:
        node.GetSegmentation().AddEmptySegment("", segment.SegmentLabel)
    return node
