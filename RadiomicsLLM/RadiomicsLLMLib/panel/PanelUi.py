"""The widgets that ``RadiomicsLLM.ui`` describes."""

from __future__ import annotations

from typing import Protocol

import ctk
import qt
import slicer


class PanelUi(Protocol):
    """Those that the panel brings to life, as attributes by their names; a test compares them with the file."""

    lesionsButton: ctk.ctkCollapsibleButton
    volumeSelector: slicer.qMRMLNodeComboBox
    modalitySelector: qt.QComboBox
    segmentationSelector: slicer.qMRMLNodeComboBox
    segmentsLabel: qt.QLabel
    segmentsList: qt.QListWidget
    sampleButton: qt.QPushButton
    editorButton: qt.QPushButton
    layoutBox: qt.QCheckBox
    modelSelector: qt.QComboBox
    modelFolderLabel: qt.QLabel
    modelFolderEdit: ctk.ctkPathLineEdit

    findingsButton: ctk.ctkCollapsibleButton

    statusLabel: qt.QLabel
    nextButton: qt.QPushButton
    classifyButton: qt.QPushButton
    progressBar: qt.QProgressBar

    resultWidget: qt.QWidget
    openReportButton: qt.QPushButton
    colorBox: qt.QCheckBox
    exportButton: qt.QPushButton
    dicomButton: qt.QPushButton
    exportOptionsButton: ctk.ctkCollapsibleButton
    exportFolderEdit: ctk.ctkPathLineEdit
    jsonBox: qt.QCheckBox
    csvBox: qt.QCheckBox
    htmlBox: qt.QCheckBox
    pdfBox: qt.QCheckBox
    pngBox: qt.QCheckBox

    modelButton: ctk.ctkCollapsibleButton
    cardButton: ctk.ctkCollapsibleButton
    cardLabel: qt.QLabel
    settingsSelector: qt.QComboBox
    settingsFileEdit: ctk.ctkPathLineEdit

    backendButton: ctk.ctkCollapsibleButton
    backendSelector: qt.QComboBox
    remoteWidget: qt.QWidget
    addressEdit: qt.QLineEdit
    tokenEdit: qt.QLineEdit
    connectButton: qt.QPushButton
    setupSectionButton: ctk.ctkCollapsibleButton
    doctorButton: ctk.ctkCollapsibleButton

    batchButton: ctk.ctkCollapsibleButton
