"""A stand-in for Slicer's DICOM database: it keeps files, and knows them by their UIDs."""

from __future__ import annotations

import shutil
import tempfile
from pathlib import Path
from typing import Any

import slicer


class DicomDatabase:
    """Open and empty at first; what is copied into it lies in a folder that ends with the process."""

    def __init__(self) -> None:
        self.isOpen = True
        self.refuse = ""
        """The import takes no file of this name."""
        self._folder = tempfile.TemporaryDirectory()
        self._files: dict[str, str] = {}
        self._series: dict[str, str] = {}

    def fileForInstance(self, instance: str) -> str:
        """Empty where there is none, as in Slicer."""
        return self._files.get(instance, "")

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
    """Of Slicer's ``DICOMLib``."""

    @staticmethod
    def importDicom(dicomDataDir: str, dicomDatabase: Any = None, copyFiles: bool = False) -> bool:
        """True whatever became of the files, as in Slicer."""
        database = dicomDatabase or slicer.dicomDatabase
        for path in sorted(Path(dicomDataDir).rglob("*.dcm")):
            database.insert(path, copyFiles)
        return True
