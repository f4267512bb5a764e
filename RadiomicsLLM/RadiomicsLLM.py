"""The Slicer module: segment a lesion, click Classify, read a calibrated probability with its reasons."""

from __future__ import annotations

import logging
from collections.abc import Sequence
from typing import TYPE_CHECKING

import numpy as np
import qt
import slicer
from RadiomicsLLMLib import (
    InProcessBackend,
    ModelChoice,
    ResultPanel,
    ResultTable,
    SegmentedVolume,
    SegmentResult,
    visibleSegmentIds,
)
from slicer.i18n import tr as _
from slicer.i18n import translate
from slicer.ScriptedLoadableModule import (
    ScriptedLoadableModule,
    ScriptedLoadableModuleLogic,
    ScriptedLoadableModuleTest,
    ScriptedLoadableModuleWidget,
)
from slicer.util import VTKObservationMixin

if TYPE_CHECKING:
    from radllm_backend import Model

MODALITIES = (None, "MG", "US", "CT", "MR")
"""In the order of the panel's list; None is automatic."""


class RadiomicsLLM(ScriptedLoadableModule):
    """What Slicer shows of the module before it is opened."""

    def __init__(self, parent: slicer.qSlicerScriptedLoadableModule) -> None:
        ScriptedLoadableModule.__init__(self, parent)
        parent.title = "RadiomicsLLM"
        parent.categories = [translate("qSlicerAbstractCoreModule", "Informatics")]
        parent.dependencies = ["Segmentations"]
        parent.contributors = ["The RadiomicsLLM developers"]
        parent.helpText = _(
            "Classifies each visible segment as likely benign or likely malignant: radiomics features of the lesion, "
            "read by a language model. For research use only. Not for diagnosis."
        )
        parent.acknowledgementText = _(
            "Method: Ra et al., Comput Methods Programs Biomed 265 (2025) 108765. Features: PyRadiomics."
        )


class RadiomicsLLMWidget(ScriptedLoadableModuleWidget, VTKObservationMixin):
    """The panel."""

    def __init__(self, parent: qt.QWidget | None = None) -> None:
        ScriptedLoadableModuleWidget.__init__(self, parent)
        VTKObservationMixin.__init__(self)
        self._backendProblem = ""

    def setup(self) -> None:
        ScriptedLoadableModuleWidget.setup(self)
        panel = slicer.util.loadUI(self.resourcePath("UI/RadiomicsLLM.ui"))
        self.layout.addWidget(panel)
        self.ui = slicer.util.childWidgetVariables(panel)
        self.logic = RadiomicsLLMLogic()
        self.resultPanel = ResultPanel(self.ui.resultsButton.layout())
        self.modelChoice = ModelChoice(
            self.ui.modelSelector, self.ui.modelFolderLabel, self.ui.modelFolderEdit, self._onInputChanged
        )
        self.ui.volumeSelector.connect("currentNodeChanged(vtkMRMLNode*)", self._onInputChanged)
        self.ui.segmentationSelector.connect("currentNodeChanged(vtkMRMLNode*)", self._onSegmentationChanged)
        self.ui.modalitySelector.connect("currentIndexChanged(int)", self._onInputChanged)
        self.ui.classifyButton.connect("clicked(bool)", self._onClassify)
        panel.setMRMLScene(slicer.mrmlScene)
        self.enter()

    def enter(self) -> None:
        """Look again for packages and models: they may have been installed meanwhile."""
        self._backendProblem = self.logic.backend.problem()
        self.modelChoice.offer(self.logic.backend.modelNames())
        self._update()

    def cleanup(self) -> None:
        self.removeObservers()

    def _onSegmentationChanged(self, segmentationNode: slicer.vtkMRMLSegmentationNode | None) -> None:
        self.removeObservers()
        if segmentationNode:
            # The node passes the segmentation's events on when its display knows the segment too.
            events = slicer.vtkSegmentation
            for event in (events.SegmentAdded, events.SegmentRemoved, events.SegmentModified):
                self.addObserver(segmentationNode, event, self._update)
            self.addObserver(segmentationNode, segmentationNode.DisplayModifiedEvent, self._update)
            self.addObserver(segmentationNode, events.SourceRepresentationModified, self._onInputChanged)
        self._onInputChanged()

    def _onInputChanged(self, *_arguments: object) -> None:
        """What is shown belongs to other inputs now; the table node keeps it."""
        self.resultPanel.clear()
        self._update()

    def _update(self, *_arguments: object) -> None:
        segmentation = self.ui.segmentationSelector.currentNode()
        names = [segmentation.GetSegmentation().GetSegment(i).GetName() for i in self._segmentIds()]
        self.ui.segmentsLabel.text = ", ".join(names)
        self.ui.segmentsLabel.visible = bool(names)
        obstacle = self._obstacle()
        self.ui.classifyButton.enabled = not obstacle
        self.ui.classifyButton.toolTip = obstacle or _("Classify every visible segment of this segmentation.")
        self._say(self._backendProblem)

    def _obstacle(self) -> str:
        """Why Classify cannot be clicked; empty where it can."""
        if self._backendProblem:
            return self._backendProblem
        if not self.ui.volumeSelector.currentNode():
            return _("Choose the volume that shows the lesions.")
        if not self.ui.segmentationSelector.currentNode():
            return _("Choose the segmentation that marks the lesions.")
        if not self._segmentIds():
            return _("Draw a segment, or make one visible.")
        if not self.modelChoice.current():
            return _("Choose the folder of your model.")
        return ""

    def _segmentIds(self) -> list[str]:
        segmentationNode = self.ui.segmentationSelector.currentNode()
        return visibleSegmentIds(segmentationNode) if segmentationNode else []

    def _say(self, sentence: str) -> None:
        self.ui.statusLabel.text = sentence
        self.ui.statusLabel.visible = bool(sentence)

    def _onClassify(self, *_arguments: object) -> None:
        from radllm_backend import RadllmError

        self.resultPanel.clear()
        self._say("")
        with slicer.util.tryWithErrorDisplay(_("The segments could not be classified."), waitCursor=True):
            try:
                results = self.logic.classify(
                    self.ui.volumeSelector.currentNode(),
                    self.ui.segmentationSelector.currentNode(),
                    self._segmentIds(),
                    self.modelChoice.current(),
                    MODALITIES[self.ui.modalitySelector.currentIndex],
                )
            except RadllmError as error:
                self._say(str(error))
            else:
                self.resultPanel.show(results)


class RadiomicsLLMLogic(ScriptedLoadableModuleLogic):
    """What the panel does, for scripts."""

    def __init__(self) -> None:
        ScriptedLoadableModuleLogic.__init__(self)
        self.backend = InProcessBackend()

    def classify(
        self,
        volumeNode: slicer.vtkMRMLVolumeNode,
        segmentationNode: slicer.vtkMRMLSegmentationNode,
        segmentIds: Sequence[str] | None = None,
        model: str | Model = "breast-us",
        modality: str | None = None,
    ) -> list[SegmentResult]:
        """Classify segments, and keep the results in the segmentation's table node.

        Args:
            volumeNode: the image, scalar or colour, of one slice or many.
            segmentationNode: its geometry may differ from the volume's.
            segmentIds: which segments, by ID; None for the visible ones.
            model: a shipped model's name, the folder of a trained one, or a ``radllm_backend.Model``.
            modality: MG, US, CT or MR; None for what the DICOM series says, if the volume came from one.

        Returns:
            One result a segment, in the order of ``segmentIds``: a prediction, or the reason why there is none.

        Raises:
            RadllmError: there is no such model, or it cannot be used.
        """
        chosen = self.backend.model(model) if isinstance(model, str) else model
        lesions = SegmentedVolume(volumeNode, segmentationNode, modality)
        ids = visibleSegmentIds(segmentationNode) if segmentIds is None else segmentIds
        results = [self._result(lesions, segmentId, chosen) for segmentId in ids]
        ResultTable(volumeNode, segmentationNode).write(results)
        return results

    def _result(self, lesions: SegmentedVolume, segmentId: str, model: Model) -> SegmentResult:
        from radllm_backend import RadllmError

        name = lesions.segmentName(segmentId)
        try:
            return SegmentResult(segmentId, name, self.backend.predict(lesions.lesion(segmentId), model))
        except RadllmError as error:
            sentence = str(error)
            return SegmentResult(segmentId, name, problem=sentence[:1].upper() + sentence[1:])
        except Exception as error:  # a mistake of ours: the other segments still get their results
            logging.exception("RadiomicsLLM could not classify a segment.")
            problem = _("Unexpected: {error}. Please report it with Slicer's error log.").format(error=error)
            return SegmentResult(segmentId, name, problem=problem)


class RadiomicsLLMTest(ScriptedLoadableModuleTest):
    """Runs in Slicer: from the module's developer tools (Reload and Test), and as a ctest."""

    def setUp(self) -> None:
        slicer.mrmlScene.Clear()

    def runTest(self) -> None:
        self.setUp()
        self.test_everySegmentHasItsRow()

    def test_everySegmentHasItsRow(self) -> None:
        logic = RadiomicsLLMLogic()
        if not logic.backend.modelNames():
            self.skipTest(logic.backend.problem() or "No model is shipped.")
        self.delayDisplay("Classify a disk and an empty segment")
        noise = np.random.default_rng(0).integers(80, 140, (1, 64, 64))
        rows, columns = np.mgrid[:64, :64]
        disk = (np.hypot(rows - 30, columns - 34) < 14)[np.newaxis]
        voxels = (noise - 40 * disk).astype(np.uint8)
        volume = slicer.util.addVolumeFromArray(voxels, np.diag([0.1, 0.1, 1, 1]), "ultrasound")
        segmentation = slicer.mrmlScene.AddNewNodeByClass("vtkMRMLSegmentationNode", "lesions")
        segmentation.CreateDefaultDisplayNodes()
        for name in ("disk", "empty"):
            segmentation.GetSegmentation().AddEmptySegment(name, name)
        slicer.util.updateSegmentBinaryLabelmapFromArray(disk.astype(np.uint8), segmentation, "disk", volume)

        model = logic.backend.modelNames()[0]
        first, second = logic.classify(volume, segmentation, model=model, modality="US")
        self.assertIsNotNone(first.prediction, first.problem)
        self.assertIn("empty", second.problem)
        self.assertEqual(ResultTable(volume, segmentation).node.GetNumberOfRows(), 2)
