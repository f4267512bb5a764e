"""Runs an unchanged Slicer scripted module (its ``.py`` files and its ``.ui``) outside Slicer.

Real: MRML with its logics and ``slicer.util`` (package ``slicer-core``), VTK, and Qt's widgets (package
``PySide6-Essentials``). Imitated, as thinly as will do:

- ``pythonqt``: how Python sees Qt in Slicer (properties are attributes, ``widget.connect("clicked(bool)", f)``);
- ``widgets``: the few widgets of MRML and CTK that the module uses;
- ``dicom``: ``slicer.dicomDatabase``, and the import into it;
- ``application``: ``slicer.app``, ``slicer.modules``, and the base classes of a scripted module.

What is not imitated raises AttributeError, so that a test cannot pass by accident. Slots swallow exceptions, in Slicer
as here, and PySide6 lets a misspelt property pass, which Slicer would refuse: every test has to assert that
``slot_errors`` and ``stray_attributes(panel)`` are empty.
"""

from __future__ import annotations

import os

os.environ.setdefault("QT_QPA_PLATFORM", "offscreen")
os.environ.setdefault("VTK_DEFAULT_OPENGL_WINDOW", "vtkEGLRenderWindow")

from Testing.slicer.harness.application import close_module, load_module, open_module
from Testing.slicer.harness.pythonqt import slot_errors, stray_attributes

__all__ = ["close_module", "load_module", "open_module", "slot_errors", "stray_attributes"]
