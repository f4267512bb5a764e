"""What works, what does not, and what to do."""

from __future__ import annotations

import getpass
import json
import os
import platform
import re
import sys
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import TypedDict

import qt
from slicer.i18n import tr as _

from ..backend.BackendEnvironment import BackendEnvironment, version
from ..backend.BackendPython import programCode
from ..backend.SlicerPackages import SlicerPackages
from ..panel.BackgroundSteps import BackgroundSteps, Step
from ..panel.PanelWidgets import makeButton, makeLabel, makeRow

_INTERVAL = 100  # milliseconds
_EXAMINE = """
import dataclasses, json
try:
    from radllm_backend.cli.doctor import examine
    findings = [dataclasses.asdict(finding) for finding in examine()]
except ImportError as error:
    findings = [{"subject": error.name, "works": False, "required": True, "detail": "not installed"}]
print(json.dumps(findings))
"""
_MEASURING = {"radllm_backend", "numpy", "SimpleITK", "radiomics", "pylibjpeg-rle", "imagecodecs"}
"""What Slicer's own Python is asked for where the language model runs elsewhere, beside what cannot be imported."""
_ELSEWHERE = {"radiomics", "pylibjpeg-rle", "imagecodecs", "SimpleITK"}
"""What a server, which gets names and numbers, never uses."""
_TRAINING = {"lightgbm", "matplotlib", "peft", "skops", "torch", "transformers"}
_EXTENSIONS = {"radiomics": "SlicerRadiomics", "radllm_backend": "RadiomicsLLM"}


class _Finding(TypedDict):
    """As `radllm_backend.cli.doctor.Finding` is printed."""

    subject: str
    works: bool
    required: bool
    detail: str


class DoctorPanel:
    """Fills a layout with the findings on Slicer's own Python and on the local server's packages."""

    def __init__(self, layout: qt.QVBoxLayout, environment: BackendEnvironment, packages: SlicerPackages) -> None:
        self._environment, self._packages = environment, packages
        self._jobs: dict[str, BackgroundSteps] = {}
        self._inSlicer = False
        self._summary = makeLabel("doctorSummaryLabel", _("Not examined yet."))
        self._findings = makeLabel("doctorFindingsLabel")
        about = _("See what is installed and what is missing. Nothing is changed.")
        self._examine = makeButton("examineButton", _("Examine"), about, self._onExamine)
        about = _("Copy this as text, without your name or your folders, for a bug report.")
        self._copy = makeButton("copyReportButton", _("Copy for a bug report"), about, self._onCopy)
        for label in (self._summary, self._findings):
            layout.addWidget(label)
        layout.addLayout(makeRow(self._examine, self._copy))
        self._timer = qt.QTimer(self._summary)
        self._timer.setInterval(_INTERVAL)
        self._timer.connect("timeout()", self._look)
        self._show()

    @property
    def isExamining(self) -> bool:
        """Whether it is still looking, or has yet to show what it found."""
        return bool(self._timer.active)

    def examine(self, inSlicer: bool) -> None:
        """Look again, in the background.

        Args:
            inSlicer: whether the language model runs, or shall run, in Slicer itself.
        """
        self.close()
        self._inSlicer = inSlicer
        # What this process finds, also below folders that extensions brought.
        here = {**os.environ, "PYTHONPATH": os.pathsep.join(filter(None, sys.path))}
        self._jobs = {_("Slicer's Python"): _examination(self._packages.python(), here, ["-c", _EXAMINE])}
        if self._environment.isReady():
            python = str(self._environment.python)
            inherited = self._packages.variables(self._packages.python() if self._environment.isSlicers else python)
            job = _examination(python, self._environment.variables(inherited), programCode(self._environment, _EXAMINE))
            self._jobs[_("Local server")] = job
        for job in self._jobs.values():
            job.start()
        self._timer.start()
        self._show()

    def close(self) -> None:
        """Cancel what runs: the panel goes, or looks anew."""
        for job in self._jobs.values():
            job.cancel()

    def report(self) -> str:
        """Everything as plain text, without the user's name and home folder."""
        lines = [*self._versions(), "", *self._lines()]
        return withoutUser("\n".join(lines)) + "\n"

    def _onExamine(self, *_arguments: object) -> None:
        self.examine(self._inSlicer)

    def _onCopy(self, *_arguments: object) -> None:
        qt.QApplication.clipboard().setText(self.report())

    def _look(self) -> None:
        if all(job.wait(0.01) for job in self._jobs.values()):
            self._timer.stop()
        self._show()

    def _show(self) -> None:
        isRunning = any(job.isRunning() for job in self._jobs.values())
        self._examine.enabled = self._copy.enabled = not isRunning
        if isRunning:
            self._summary.text = _("Examining…")
        elif self._jobs:
            self._summary.text = self._conclusion()
        self._findings.text = "" if isRunning else "\n".join([*self._versions(), "", *self._lines()])

    def _conclusion(self) -> str:
        missing = [finding for place in self._jobs for finding in self._of(place) if _isObstacle(finding)]
        if missing:
            return _("Not everything works: do what stands beside each cross ({count}).").format(count=len(missing))
        if not self._environment.isReady():
            works = _("Classifying in this Slicer works.") if self._inSlicer else _("Measuring in this Slicer works.")
            return f"{works} " + _("The local server, which a batch needs too, is not set up.")
        return _("Everything that was examined works.")

    def _versions(self) -> list[str]:
        module = _("RadiomicsLLM {version}").format(version=version())
        application = _("Slicer {version}").format(version=self._packages.slicerVersion())
        system = f"{platform.system()} {platform.release()} ({platform.machine()})"  # platform() starts a process
        return [f"{module}, {application}, Python {platform.python_version()}, {system}"]

    def _lines(self) -> list[str]:
        lines = []
        for place in self._jobs:
            lines += [place, *[_line(place, finding) for finding in self._of(place)], ""]
        if not self._environment.isReady():
            lines += [_("Local server"), f"– {self._environment.problem()}"]
        return lines

    def _of(self, place: str) -> Sequence[_Finding]:
        """The findings that matter in a place."""
        findings = [finding for finding in _findings(self._jobs[place]) if finding["subject"] not in _TRAINING]
        if place == _("Local server"):
            return [finding for finding in findings if finding["subject"] not in _ELSEWHERE]
        if self._inSlicer:
            return findings
        known = {finding["subject"] for finding in findings}
        wanted = _MEASURING if "radllm_backend" in known else known  # else: only why it cannot be imported
        return [finding for finding in findings if finding["subject"] in wanted]


def withoutUser(text: str) -> str:
    """Text that may be published: the home folder is ~, and no folder carries the user's name."""
    for home in {str(Path.home()), str(Path.home().resolve())}:
        text = text.replace(home, "~").replace(home.replace("\\", "/"), "~")
    return re.sub(rf"(?<=[\\/]){re.escape(getpass.getuser())}(?=[\\/\s]|$)", "USER", text)


def _examination(python: str, variables: Mapping[str, str], program: Sequence[str]) -> BackgroundSteps:
    return BackgroundSteps([Step(_("Examining"), [python, *program])], variables)


def _findings(job: BackgroundSteps) -> Sequence[_Finding]:
    answers = [line for line in job.log if line.startswith("[{")]
    if answers:
        findings: list[_Finding] = json.loads(answers[-1])
        return findings
    return [{"subject": "radllm_backend", "works": False, "required": True, "detail": job.problem or "no answer"}]


def _isObstacle(finding: _Finding) -> bool:
    return finding["required"] and not finding["works"]


def _line(place: str, finding: _Finding) -> str:
    mark = "✓" if finding["works"] else "✗" if finding["required"] else "–"
    line = f"{mark} {finding['subject']}: {finding['detail']}"
    return f"{line}  →  {_advice(place, finding['subject'])}" if _isObstacle(finding) else line


def _advice(place: str, subject: str) -> str:
    if place == _("Local server"):
        return _("click “Set up backend…”, or “Remove downloads” first")
    if subject in _EXTENSIONS:
        return _("install the extension {extension} and restart Slicer").format(extension=_EXTENSIONS[subject])
    return _("click “Install into Slicer…”")
