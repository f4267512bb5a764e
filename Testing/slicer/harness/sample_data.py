"""A stand-in for Slicer's module *Sample Data*, which refuses what the real one refuses.

Checked against ``Modules/Scripted/SampleData/SampleData.py`` of Slicer 5.10 and 5.12: the keywords, what a text and a
list of ``uris`` make of the others, and that all of them are of one length. Its window is Slicer's own.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import slicer

_OF_ONE_LENGTH = ("uris", "fileNames", "nodeNames", "loadFiles", "loadFileType", "checksums")
_MAY_BE_LEFT_OUT = ("nodeNames", "loadFiles", "checksums")  # beside a list of addresses


class SampleDataSource:
    """What can be loaded with one click."""

    def __init__(
        self,
        sampleName: Any = None,
        sampleDescription: Any = None,
        uris: Any = None,
        fileNames: Any = None,
        nodeNames: Any = None,
        checksums: Any = None,
        loadFiles: Any = None,
        customDownloader: Any = None,
        thumbnailFileName: Any = None,
        loadFileType: Any = None,
        loadFileProperties: Any = None,
    ) -> None:
        self.sampleName, self.sampleDescription = sampleName, sampleDescription or sampleName
        self.customDownloader, self.thumbnailFileName = customDownloader, thumbnailFileName
        self.loadFileProperties = loadFileProperties or {}
        self.uris, self.fileNames, self.nodeNames = uris, fileNames, nodeNames
        self.loadFiles, self.loadFileType, self.checksums = loadFiles, loadFileType, checksums
        if isinstance(uris, str):
            for name in _OF_ONE_LENGTH:
                setattr(self, name, [getattr(self, name)])
        elif isinstance(uris, list | tuple):
            self._fill(len(uris))
        # As the real one: no list at all, or a list without its names, is a TypeError here.
        rows = zip(self.fileNames, self.nodeNames, self.loadFileType, strict=False)
        self.loadFileType = [kind or self._kind(file, node) for file, node, kind in rows]
        lengths = {name: len(getattr(self, name)) for name in _OF_ONE_LENGTH}
        if len(set(lengths.values())) > 1:
            raise ValueError(f"All fields of sample data source must have the same length: {lengths}")

    def _fill(self, count: int) -> None:
        if self.loadFileType is None or isinstance(self.loadFileType, str):
            self.loadFileType = [self.loadFileType] * count
        for name in _MAY_BE_LEFT_OUT:
            if getattr(self, name) is None:
                setattr(self, name, [None] * count)

    @staticmethod
    def _kind(file: str, node: str | None) -> str | None:
        if node is not None:
            return "VolumeFile"
        endings = {".mrml": "SceneFile", ".mrb": "SceneFile", ".zip": "ZipFile"}
        return next((kind for ending, kind in endings.items() if file.lower().endswith(ending)), None)

    def __eq__(self, other: object) -> bool:
        return isinstance(other, SampleDataSource) and str(vars(self)) == str(vars(other))

    __hash__ = None  # type: ignore[assignment]  # as any class with its own equality


class SampleDataLogic:
    """Keeps the sources in ``slicer.modules.sampleDataSources``, by category, as the real one."""

    @staticmethod
    def registerCustomSampleDataSource(
        category: str = "Custom",
        sampleName: Any = None,
        uris: Any = None,
        fileNames: Any = None,
        nodeNames: Any = None,
        customDownloader: Callable[[SampleDataSource], Any] | None = None,
        thumbnailFileName: Any = None,
        loadFileType: Any = "VolumeFile",
        loadFiles: Any = None,
        loadFileProperties: Any = None,
        checksums: Any = None,
    ) -> None:
        given = {name: value for name, value in locals().items() if name != "category"}
        if not hasattr(slicer.modules, "sampleDataSources"):
            slicer.modules.sampleDataSources = {}
        sources = slicer.modules.sampleDataSources.setdefault(category, [])  # also where the next line fails
        source = SampleDataSource(**given)
        if source not in sources:
            sources.append(source)
