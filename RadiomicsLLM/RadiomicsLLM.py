"""The Slicer module: segment a lesion, click Classify, read a calibrated probability with its reasons."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING

import qt
import slicer
from slicer.i18n import tr as _
from slicer.i18n import translate
from slicer.ScriptedLoadableModule import (
    ScriptedLoadableModule,
    ScriptedLoadableModuleLogic,
    ScriptedLoadableModuleTest,
    ScriptedLoadableModuleWidget,
)

from RadiomicsLLMLib import (
    LOCAL,
    PROCESS,
    REMOTE,
    Classification,
    InProcessBackend,
    LocalServerBackend,
    Measurer,
    Panel,
    RadiomicsLLMSubjectHierarchyPlugin,
    RemoteBackend,
    SegmentedVolume,
    SegmentResult,
    backendPython,
    loadSampleLesions,
    readFindings,
    readResults,
    registerSampleLesions,
    registerSubjectHierarchyPlugin,
    runHere,
    visibleSegmentIds,
    writeResults,
)

if TYPE_CHECKING:
    from RadiomicsLLMLib.backend.Backend import Backend
    from RadiomicsLLMLib.backend.BackendChoice import BackendName, Backends
    from RadiomicsLLMLib.panel.Background import Steps
    from RadiomicsLLMLib.results.Classification import Approve

__all__ = [
    "RadiomicsLLM",
    "RadiomicsLLMLogic",
    "RadiomicsLLMSubjectHierarchyPlugin",  # Slicer looks for it here: see `registerSubjectHierarchyPlugin`
    "RadiomicsLLMTest",
    "RadiomicsLLMWidget",
]


_DOCUMENTATION = "https://github.com/RadiomicsLLM/SlicerRadiomicsLLM#readme"


class RadiomicsLLM(ScriptedLoadableModule):
    """What Slicer shows of the module before it is opened."""

    def __init__(self, parent: slicer.qSlicerScriptedLoadableModule) -> None:
        ScriptedLoadableModule.__init__(self, parent)
        parent.title = "RadiomicsLLM"
        parent.categories = [translate("qSlicerAbstractCoreModule", "Informatics")]
        parent.dependencies = ["Segmentations"]
        parent.contributors = ["The RadiomicsLLM developers"]
        parent.helpText = (
            _(
                "Classifies each chosen segment as likely benign or likely malignant: radiomics features of the "
                "lesion, read by a language model. For research use only. Not for diagnosis."
            )
            + f' <a href="{_DOCUMENTATION}">{_("Documentation")}</a>'
        )
        parent.acknowledgementText = _(
            "Method: Ra et al., Comput Methods Programs Biomed 265 (2025) 108765. Features: PyRadiomics."
        )
        thumbnail = Path(parent.path).parent / "Resources" / "Icons" / "RadiomicsLLM.png"
        slicer.app.connect("startupCompleted()", lambda: registerSampleLesions(thumbnail))
        slicer.app.connect("startupCompleted()", lambda: registerSubjectHierarchyPlugin(parent.path))


class RadiomicsLLMWidget(ScriptedLoadableModuleWidget):
    """The panel's life in Slicer; what it does is in `RadiomicsLLMLib.Panel`."""

    def __init__(self, parent: qt.QWidget | None = None) -> None:
        ScriptedLoadableModuleWidget.__init__(self, parent)

    def setup(self) -> None:
        ScriptedLoadableModuleWidget.setup(self)
        widgets = slicer.util.loadUI(self.resourcePath("UI/RadiomicsLLM.ui"))
        self.layout.addWidget(widgets)
        self.ui = slicer.util.childWidgetVariables(widgets)
        self.logic = RadiomicsLLMLogic()
        self.panel = Panel(self.ui, self.logic)
        widgets.setMRMLScene(slicer.mrmlScene)
        self.panel.enter()

    def enter(self) -> None:
        self.panel.enter()

    def exit(self) -> None:
        self.panel.exit()

    def cleanup(self) -> None:
        self.panel.close()
        self.logic.close()


class RadiomicsLLMLogic(ScriptedLoadableModuleLogic):
    """What the panel does, for scripts."""

    def __init__(self) -> None:
        ScriptedLoadableModuleLogic.__init__(self)
        python = backendPython()
        self.measurer = Measurer(python)
        self.backends: Backends = {
            LOCAL: LocalServerBackend(python),
            PROCESS: InProcessBackend(),
            REMOTE: RemoteBackend(),
        }

    def classify(
        self,
        volumeNode: slicer.vtkMRMLVolumeNode,
        segmentationNode: slicer.vtkMRMLSegmentationNode,
        segmentIds: Sequence[str] | None = None,
        model: str = "breast-us",
        modality: str | None = None,
        settings: str | None = None,
        backend: BackendName | None = None,
        findings: Mapping[str, Mapping[str, str]] | None = None,
    ) -> list[SegmentResult]:
        """Classify segments, and keep the results in the scene. Returns when all is done.

        Args:
            volumeNode: the image, scalar or colour, of one slice or many.
            segmentationNode: its geometry may differ from the volume's.
            segmentIds: which segments, by ID; None for the visible ones.
            model: a shipped model's name, or the folder of a trained one.
            modality: MG, US, CT or MR; None for what the DICOM series says, if the volume came from one.
            settings: a preset or a PyRadiomics parameter file instead of the settings the model was trained with.
            backend: ``process`` (in this Slicer), ``local`` (a server) or ``remote`` (whose ``use`` tells its address
                and token); None for the first of the first two that is ready.
            findings: what the radiologist found, for models that read it, by segment ID and descriptor:
                ``{"Segment_1": {"mass_shape": "oval"}}``; None for what was chosen on the panel.

        Returns:
            One result a segment, in the order of ``segmentIds``: a `prediction`, or a `problem` that says why not.

        Raises:
            RadllmError: there is no such model, or the backend cannot be used.
        """
        source = SegmentedVolume(volumeNode, segmentationNode, modality)
        ids = visibleSegmentIds(segmentationNode) if segmentIds is None else segmentIds
        if findings is None:
            findings = {segmentId: readFindings(segmentationNode, segmentId) for segmentId in ids}
        return runHere(
            self.steps(source, ids, model, settings=settings, backend=self._ready(backend, model), findings=findings)
        )

    def steps(
        self,
        source: SegmentedVolume,
        segmentIds: Sequence[str],
        model: str,
        *,
        settings: str | None,
        backend: Backend,
        approve: Approve | None = None,
        findings: Mapping[str, Mapping[str, str]] | None = None,
    ) -> Steps[list[SegmentResult]]:
        """The same in steps, for the panel: see `RadiomicsLLMLib.panel.Background`."""
        measure = self.measurer.extract
        run = Classification(source, segmentIds, backend, model, settings, measure, approve, findings or {})
        results = yield from run.steps()
        if source.isInScene():
            writeResults(source.volumeNode, source.segmentationNode, results)
        return results

    def close(self) -> None:
        """Stop what was started: the local server, connections, what measures elsewhere."""
        self.measurer.close()
        for backend in (self.backends[LOCAL], self.backends[PROCESS], self.backends[REMOTE]):
            backend.close()

    def _ready(self, name: BackendName | None, model: str) -> Backend:
        from radllm_backend import RadllmError

        from RadiomicsLLMLib.backend.ModelInputs import modelInputs
        from RadiomicsLLMLib.backend.Requirements import READS_ELSEWHERE, READS_HERE, missingSentence

        names: list[BackendName] = [name] if name else [PROCESS, LOCAL]
        chosen: list[Backend] = [self.backends[one] for one in names]
        problems = [
            (self.measurer.problem() if modelInputs(backend, model).readsImage else "")
            or backend.problem()
            or missingSentence(READS_HERE if backend.readsHere else READS_ELSEWHERE)
            for backend in chosen
        ]
        if all(problems):
            raise RadllmError(problems[0])
        return chosen[problems.index("")]


class RadiomicsLLMTest(ScriptedLoadableModuleTest):
    """Runs in Slicer: from the module's developer tools (Reload and Test), and as a ctest."""

    def setUp(self) -> None:
        slicer.mrmlScene.Clear()

    def runTest(self) -> None:
        self.setUp()
        self.test_everySegmentHasItsRow()

    def test_everySegmentHasItsRow(self) -> None:
        logic = RadiomicsLLMLogic()
        from RadiomicsLLMLib.backend.Requirements import READS_HERE, missingSentence

        problem = logic.measurer.problem()
        ready: list[BackendName] = [
            name for name in (PROCESS, LOCAL) if not (problem or logic.backends[name].problem())
        ]
        if missing := missingSentence(READS_HERE):  # nothing is installed without a question
            ready = [name for name in ready if name != PROCESS]
        if not ready:
            self.delayDisplay(problem or missing)  # “Reload and Test” shows a skipped test as failed
            return
        self.delayDisplay("Classify two synthetic lesions and an empty segment")
        volume, segmentation = loadSampleLesions()
        segmentation.GetSegmentation().AddEmptySegment("empty", "empty")
        try:
            model = logic.backends[ready[0]].modelNames()[0]
            *lesions, empty = logic.classify(volume, segmentation, model=model, backend=ready[0])
        finally:
            logic.close()
        for result in lesions:
            self.assertIsNotNone(result.prediction, result.problem)
        self.assertIn("empty", empty.problem)
        self.assertEqual(len(readResults(segmentation)), 3)
