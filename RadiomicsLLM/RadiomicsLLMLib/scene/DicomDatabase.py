"""Slicer's DICOM database."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

import slicer
from slicer.i18n import tr as _

_INSTANCES = "DICOM.instanceUIDs"  # what Slicer's DICOM plugins note on a volume, with spaces between


class DicomDatabase:
    """The one place where the database is read and changed. Only on the main thread."""

    def isOpen(self) -> bool:
        database = getattr(slicer, "dicomDatabase", None)  # none where the module DICOM is switched off
        return database is not None and database.isOpen

    def folder(self) -> str:
        """Where the open database lies; empty where none is open."""
        return slicer.dicomDatabase.databaseDirectory if self.isOpen() else ""

    def holdsSeries(self, series: str) -> bool:
        """Whether the open database has files of a series."""
        return self.isOpen() and bool(slicer.dicomDatabase.filesForSeries(series))

    def seriesOf(self, instance: str) -> str:
        """Of a file that the open database has; empty where it does not."""
        file = slicer.dicomDatabase.fileForInstance(instance) if self.isOpen() else ""
        return slicer.dicomDatabase.seriesForFile(file) if file else ""

    def load(self, series: Sequence[str]) -> list[slicer.vtkMRMLNode]:
        """The nodes of these series; those that are not in the scene yet are loaded by Slicer's DICOM plugins.

        What no plugin can load is left out.
        """
        from DICOMLib import DICOMUtils

        missing = [uid for uid in series if _nodeOf(uid) is None]
        loaded = DICOMUtils.loadSeriesByUID(missing) if missing else []
        nodes = [_nodeOf(uid) for uid in series] + [slicer.mrmlScene.GetNodeByID(node) for node in loaded or []]
        return [node for node in nodes if node is not None]

    def holds(self, volumeNode: slicer.vtkMRMLVolumeNode) -> bool:
        """Whether a volume came from a DICOM database; not whether its files are still there."""
        return bool(volumeNode.GetAttribute(_INSTANCES))

    def files(self, volumeNode: slicer.vtkMRMLVolumeNode) -> list[Path]:
        """The files that a volume came from.

        Raises:
            RadllmError: the database does not have them any more.
        """
        from radllm_backend import RadllmError

        instances = volumeNode.GetAttribute(_INSTANCES).split()
        files = [slicer.dicomDatabase.fileForInstance(instance) for instance in instances]
        if not all(files):
            raise RadllmError(_("The volume's DICOM files are not in the open database: import its series again."))
        return [Path(file) for file in files]

    def add(self, folder: Path) -> None:
        """Copy all DICOM files below a folder into the database: all or none.

        Raises:
            RadllmError: the database did not take them.
        """
        import pydicom
        from DICOMLib import DICOMUtils

        from radllm_backend import RadllmError

        headers = [pydicom.dcmread(path, stop_before_pixels=True) for path in sorted(folder.rglob("*.dcm"))]
        database = slicer.dicomDatabase
        DICOMUtils.importDicom(str(folder), database, copyFiles=True)
        # It only logs what it could not do.
        if all(database.fileForInstance(header.SOPInstanceUID) for header in headers):
            return
        for header in headers:
            database.removeSeries(header.SeriesInstanceUID)
        raise RadllmError(_("Slicer's DICOM database did not take the files: Slicer's error log says why."))


def _nodeOf(series: str) -> slicer.vtkMRMLNode | None:
    """The node that came from a series, as the subject hierarchy knows it."""
    hierarchy = slicer.vtkMRMLSubjectHierarchyNode.GetSubjectHierarchyNode(slicer.mrmlScene)
    item = hierarchy.GetItemByUID(slicer.vtkMRMLSubjectHierarchyConstants.GetDICOMUIDName(), series)
    return hierarchy.GetItemDataNode(item) if item else None
