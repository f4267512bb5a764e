"""The adaptation curve as numbers and as a figure: AUC over the number of labelled lesions of the new data set."""

from __future__ import annotations

from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING, Any

from radllm_backend.errors import RadllmError
from radllm_backend.features.table import write_csv
from radllm_backend.files import write_atomically
from radllm_backend.reports.evaluation_plots import drawn

if TYPE_CHECKING:
    from matplotlib.axes import Axes
    from matplotlib.figure import Figure

    from radllm_backend.learning.adaptation import AdaptationCurve, CurvePoint

_STYLES: tuple[dict[str, Any], ...] = (
    {"color": "#d55e00", "marker": "o", "linestyle": "solid", "linewidth": 2.4},
    {"color": "#cc79a7", "marker": "D", "linestyle": (0, (1, 1))},
    {"color": "#0072b2", "marker": "s", "linestyle": (0, (5, 1.5))},
    {"color": "#009e73", "marker": "^", "linestyle": (0, (6, 1.5, 1, 1.5))},
)
"""Of the models in their order: colours of Okabe and Ito, *Color Universal Design* (2008), dashes for a print."""
_TEXT, _LINE = "#222222", "#dddddd"
_LOOK = {
    "svg.fonttype": "path",  # looks the same in every README, whatever fonts there are
    "svg.hashsalt": "radllm",
    "text.parse_math": False,  # a dollar sign in a name is a dollar sign
    "font.family": ["DejaVu Sans"],
    "font.size": 10,
    "axes.titlesize": 10,
    "axes.titlelocation": "left",
    "axes.spines.top": False,
    "axes.spines.right": False,
    "axes.edgecolor": _TEXT,
    "text.color": _TEXT,
    "grid.color": _LINE,
    "legend.frameon": False,
    "lines.linewidth": 1.7,
    "lines.markersize": 6,
    "errorbar.capsize": 2.5,
    "savefig.dpi": 200,
    "figure.constrained_layout.use": True,
}
_INCHES = (7.2, 4.6)
_APART = 0.025  # of the axis: models side by side, so that their intervals can be told apart


def write_adaptation(folder: Path, curve: AdaptationCurve) -> None:
    """Write ``adaptation.json``, ``adaptation.csv`` (a line a trial), ``adaptation.svg`` and ``adaptation.png``.

    Each whole or not at all, the numbers first: they took long, and a figure can be drawn again. The same curve gives
    the same bytes.

    Args:
        folder: made if missing.

    Raises:
        RadllmError: the folder cannot be written, or matplotlib is missing (the numbers are written then).
    """
    try:
        folder.mkdir(parents=True, exist_ok=True)
    except OSError as error:
        raise RadllmError(
            f"The curve cannot be written to {folder.name} ({error.strerror or error}): choose another folder."
        ) from error
    write_atomically(folder / "adaptation.json", curve.model_dump_json(indent=2) + "\n")
    lines = [[trial.model, str(trial.size), str(trial.repeat), repr(trial.auc)] for trial in curve.trials]
    write_csv(folder / "adaptation.csv", [["model", "labelled_lesions", "repeat", "auc"], *lines])
    # Neither the day nor the version of matplotlib, which would change bytes that show the same.
    draw = partial(_draw, curve=curve)
    write_atomically(folder / "adaptation.svg", drawn(_LOOK, _INCHES, draw, "svg", {"Date": None, "Creator": None}))
    write_atomically(folder / "adaptation.png", drawn(_LOOK, _INCHES, draw, "png", {"Software": None}))


def _draw(figure: Figure, curve: AdaptationCurve) -> None:
    axes = figure.subplots()
    models = list(dict.fromkeys(point.model for point in curve.points))
    for place, (model, style) in enumerate(zip(models, _STYLES, strict=True)):
        points = [point for point in curve.points if point.model == model]
        _draw_model(axes, points, (place - (len(models) - 1) / 2) * _APART, style)
    axes.axhline(0.5, color=_TEXT, linewidth=1, linestyle=(0, (2, 2)), zorder=1)
    axes.annotate("chance", (1, 0.5), (0, 3), ("axes fraction", "data"), "offset points", ha="right", fontsize=8.5)
    sizes = sorted({point.size for point in curve.points})
    axes.set_xscale("log")
    axes.set_xticks(sizes, list(map(str, sizes)))
    axes.minorticks_off()
    axes.grid(axis="y", linewidth=0.7)
    axes.set_axisbelow(True)
    axes.set_xlabel(f"Labelled lesions of {curve.target}")
    axes.set_ylabel(f"AUC, mean of {len(curve.test_lesions)} repeats and its 95% interval")
    axes.set_title(f"Trained on {curve.source}, adapted to {curve.target}")
    figure.legend(*axes.get_legend_handles_labels(), loc="outside lower center", ncols=2, handlelength=3.6)


def _draw_model(axes: Axes, points: list[CurvePoint], shift: float, style: dict[str, Any]) -> None:
    values = [point.auc.value for point in points]
    reach = [
        [point.auc.value - point.auc.low for point in points],
        [point.auc.high - point.auc.value for point in points],
    ]
    places = [point.size * 10**shift for point in points]
    axes.errorbar(places, values, reach, elinewidth=1, label=points[0].model, **style)
