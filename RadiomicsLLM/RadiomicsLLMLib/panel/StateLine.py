"""The one line between the choices and the button: what goes on, or what is missing and the next step."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass

import qt


@dataclass(frozen=True)
class NextStep:
    """A button beside the line."""

    text: str
    toolTip: str
    do: Callable[[], object]


class StateLine:
    """A label with one sentence, and a button for what the sentence asks for; both are hidden where nothing is said."""

    def __init__(self, label: qt.QLabel, button: qt.QPushButton) -> None:
        self._label, self._button = label, button
        self._step: NextStep | None = None
        button.connect("clicked(bool)", self._onClicked)
        self.say("")

    def say(self, sentence: str, step: NextStep | None = None) -> None:
        """Replace the sentence, and the button with it.

        Args:
            step: what the user can do about it with a click; None for nothing.
        """
        self._step = step
        self._label.text = sentence
        self._label.visible = bool(sentence)
        self._button.visible = step is not None
        if step:
            self._button.text, self._button.toolTip = step.text, step.toolTip

    def _onClicked(self, *_arguments: object) -> None:
        if self._step:
            self._step.do()
