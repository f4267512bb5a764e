"""Where lesions are measured: in Slicer's own Python, or in another one that has PyRadiomics."""

from __future__ import annotations

import shutil
import subprocess
import sys
import tempfile
import threading
from pathlib import Path
from typing import IO, TYPE_CHECKING

from slicer.i18n import tr as _

from ..panel.ProcessGroup import asSentence, killGroup, reasonOf, startGroup
from .BackendPython import BackendPython, programCode, programVariables
from .Requirements import isMissing

if TYPE_CHECKING:
    from radllm_backend import Features, Lesion
    from radllm_backend.features.extraction_settings import Settings

_SERVE = "from radllm_backend.features.elsewhere import serve; serve()"


class Measurer:
    """In Slicer's own Python, wherever that has PyRadiomics; else in the local server's, with the same values.

    SlicerRadiomics, which brings PyRadiomics, is not made for macOS. The other Python gets a lesion's voxels in a
    private folder of this computer, which is deleted once they are measured. Its process is kept for the next lesion,
    and ends with Slicer.
    """

    def __init__(self, python: BackendPython) -> None:
        """
        Args:
            python: the other one.
        """
        self._python = python
        self._lock = threading.Lock()
        self._process: subprocess.Popen[str] | None = None
        self._said: IO[str] | None = None

    def problem(self) -> str:
        """Why no lesion can be measured and what to do, in one sentence; empty where it can. Quick."""
        if self._isHere() or (self._python.measures and not self._python.problem()):
            return ""
        if sys.platform == "darwin":
            return _(
                "There is no extension SlicerRadiomics for macOS: under “Set up”, choose a Python that can build "
                "PyRadiomics and click “Set up backend…”, and lesions are measured there."
            )
        return _(
            "PyRadiomics is missing: install the extension SlicerRadiomics and restart Slicer, or choose another "
            "Python under “Set up” and click “Set up backend…”."
        )

    def extract(self, lesion: Lesion, settings: Settings) -> Features:
        """The features of a lesion. Takes long: not for the main thread.

        Raises:
            RadllmError: it cannot be measured, or the other Python cannot be started, or was ended.
        """
        if self._isHere():
            from radllm_backend import extract

            return extract(lesion, settings)
        return self._extractElsewhere(lesion, settings)

    def cancel(self) -> None:
        """Have what is measured elsewhere end at once, with an exception."""
        with self._lock:
            if self._process:
                killGroup(self._process)

    def close(self) -> None:
        """End the other process."""
        self.cancel()
        with self._lock:
            self._forget()

    def _isHere(self) -> bool:
        return not isMissing("radiomics")

    def _extractElsewhere(self, lesion: Lesion, settings: Settings) -> Features:
        from radllm_backend import RadllmError
        from radllm_backend.features.elsewhere import answered, ask

        if problem := self.problem():
            raise RadllmError(problem)
        folder = Path(tempfile.mkdtemp(prefix="RadiomicsLLM-"))  # the user's alone
        try:
            ask(folder, lesion, settings)
            process = self._started()
            assert process.stdin is not None
            assert process.stdout is not None
            process.stdin.write(f"{folder}\n")
            process.stdin.flush()
            if not process.stdout.readline():
                raise RadllmError(_("The lesion was not measured: {reason}").format(reason=self._reason(process)))
            return answered(folder)
        except OSError as error:
            sentence = _("The lesion was not measured with {python} ({reason}): set up the backend again.")
            reason = error.strerror or str(error)
            raise RadllmError(sentence.format(python=self._python.python, reason=reason)) from error
        finally:
            shutil.rmtree(folder, ignore_errors=True)

    def _started(self) -> subprocess.Popen[str]:
        """The other process: that of the last lesion, or a new one."""
        with self._lock:
            if self._process and self._process.poll() is None:
                return self._process
            self._forget()
            self._said = tempfile.TemporaryFile("w+", encoding="utf-8", errors="replace")  # noqa: SIM115 - see _forget
            self._process = startGroup(
                [str(self._python.python), *programCode(self._python, _SERVE)],
                programVariables(self._python),
                stdin=subprocess.PIPE,
                stdout=subprocess.PIPE,
                stderr=self._said,
                encoding="utf-8",
            )
            return self._process

    def _reason(self, process: subprocess.Popen[str]) -> str:
        status = process.wait()
        assert self._said is not None
        self._said.seek(0)
        return asSentence(reasonOf(self._said.read().splitlines(), status))

    def _forget(self) -> None:
        """Close what belongs to a process that has ended, or is about to."""
        if self._process:
            self._process.wait()
            for pipe in (self._process.stdin, self._process.stdout, self._said):
                if pipe:
                    pipe.close()
        self._process = self._said = None
