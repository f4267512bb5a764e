"""The plots of an evaluation as SVG for a page: its colours in light and dark, text as text, the same bytes each time.

matplotlib is imported on the first plot, so that all else works without it.
"""

from __future__ import annotations

import html
import io
import re
import textwrap
from collections.abc import Callable, Sequence
from typing import TYPE_CHECKING, Any, Literal

from scipy.stats import binomtest

from radllm_backend.errors import RadllmError
from radllm_backend.features.names import display_name, is_canonical
from radllm_backend.learning.metrics import SelectionStability
from radllm_backend.learning.options import Family
from radllm_backend.learning.scorecard import ModelResult, Scorecard

if TYPE_CHECKING:
    from matplotlib.axes import Axes
    from matplotlib.figure import Figure

COLOURS: dict[Family, str] = {
    "classical": "#0072b2",
    "frozen": "#cc79a7",
    "lora": "#d55e00",
    "fusion": "#009e73",
    "ablation": "var(--quiet)",
}
"""Okabe and Ito, *Color Universal Design* (2008): told apart by colour-blind readers, 3:1 on white and on dark."""
MARKERS: dict[Family, str] = {"classical": "s", "frozen": "D", "lora": "o", "fusion": "^", "ablation": "v"}
DASHES: dict[Family, str | tuple[int, tuple[float, ...]]] = {
    "classical": (0, (5, 1.5)),
    "frozen": (0, (1, 1)),
    "lora": "solid",
    "fusion": (0, (6, 1.5, 1, 1.5)),
    "ablation": "solid",
}
"""For a print without colours."""
FEATURES_SHOWN = 15

# matplotlib knows no style sheets: it draws with colours that nothing else has, and they are replaced afterwards.
_TEXT, _QUIET, _LINE, _PAGE = "#010203", "#010204", "#010205", "#010206"
_VARIABLES = {_TEXT: "var(--text)", _QUIET: "var(--quiet)", _LINE: "var(--line)", _PAGE: "var(--page)"}
_STYLE = {
    "svg.fonttype": "none",
    "svg.hashsalt": "radllm",
    "text.parse_math": False,  # a dollar sign in a name is a dollar sign
    "font.family": ["DejaVu Sans"],  # comes with matplotlib and is wide: the page's own font fits where it did
    "font.size": 9,
    "axes.unicode_minus": True,
    "axes.spines.top": False,
    "axes.spines.right": False,
    "axes.titlesize": 9,
    "axes.labelsize": 9,
    "legend.fontsize": 8.5,
    "legend.frameon": False,
    "lines.linewidth": 1.8,
    "text.color": _TEXT,
    "axes.labelcolor": _TEXT,
    "axes.titlecolor": _TEXT,
    "axes.edgecolor": _QUIET,
    "xtick.color": _QUIET,
    "ytick.color": _QUIET,
    "xtick.labelcolor": _TEXT,
    "ytick.labelcolor": _TEXT,
    "grid.color": _LINE,
    "figure.facecolor": "none",
    "axes.facecolor": "none",
    "savefig.facecolor": "none",
    "figure.constrained_layout.use": True,
}
_WIDTH = 9.4  # inches: the width of the page's text at 96 pixels an inch
_LABEL_CHARACTERS = 46
_CONFIDENCE = 0.95


def check_drawing() -> None:
    """Find out before a long evaluation whether its page can be drawn.

    Raises:
        RadllmError: matplotlib is not installed.
    """
    try:
        import matplotlib  # noqa: F401
    except ImportError as error:
        raise RadllmError(
            "The plots of an evaluation need matplotlib, which is not installed: run pip install matplotlib."
        ) from error


def drawn(
    style: Any,
    inches: tuple[float, float],
    draw: Callable[[Figure], None],
    kind: Literal["svg", "png"],
    metadata: dict[str, None],
) -> bytes:
    """A drawing as a file's content, the same bytes each time.

    Args:
        style: matplotlib's settings by name; whatever else the user's own matplotlibrc says is not heard.
        inches: width and height.
        draw: what puts everything into the figure.
        metadata: what the file does not say of itself, such as the date.

    Raises:
        RadllmError: matplotlib is not installed.
    """
    check_drawing()
    import matplotlib
    from matplotlib.figure import Figure

    buffer = io.BytesIO()
    with matplotlib.rc_context():
        matplotlib.rcdefaults()
        matplotlib.rcParams.update(style)
        figure = Figure(figsize=inches)
        draw(figure)
        figure.savefig(buffer, format=kind, metadata=metadata)
    return buffer.getvalue()


def forest(scorecard: Scorecard, groups: Sequence[Sequence[ModelResult]]) -> str:
    """AUC with bootstrap interval of every model, one group of models below the other."""
    rows = [model for group in groups for model in group]
    labels = [_wrapped(model.model) for model in rows]
    heights = [0.21 + 0.14 * label.count("\n") for label in labels]
    places, top = _stacked(heights, groups, gap=0.14)

    def draw(figure: Figure) -> None:
        axes = figure.subplots()
        for model, place in zip(rows, places, strict=True):
            _forest_row(axes, model, place, model.model == scorecard.best_baseline)
        best = next((model for model in rows if model.model == scorecard.best_baseline), None)
        if best is not None:
            axes.axvline(best.auc.value, color=_QUIET, linewidth=0.9, linestyle=(0, (4, 3)), zorder=0)
        axes.axvline(0.5, color=_LINE, linewidth=1.2, zorder=0)
        low = min([0.5, *(model.auc.low for model in rows)])
        high = max([0.55, *(model.auc.high for model in rows)])
        axes.set_xlim(low - 0.02, min(high, 1.0) + 0.012)
        axes.set_ylim(top + 0.1, -0.12)
        axes.set_yticks(places, labels)
        axes.tick_params(axis="y", length=0)
        axes.spines["left"].set_visible(False)
        axes.set_xlabel("Area under the ROC curve, 95% interval")

    return _svg("forest", (_WIDTH, top + 0.7), draw, _forest_words(scorecard, rows))


def roc(models: Sequence[ModelResult]) -> str:
    """ROC curves of the first seed."""

    def draw(figure: Figure) -> None:
        axes = figure.subplots()
        axes.plot([0, 1], [0, 1], color=_LINE, linewidth=1.2)
        for model in models:
            axes.plot(*zip(*model.roc, strict=True), **_line(model))
        axes.set(xlim=(-0.01, 1.01), ylim=(-0.01, 1.01), aspect="equal")
        axes.set(xlabel="1 − specificity", ylabel="Sensitivity")
        _legend_below(figure, axes)

    words = "; ".join(f"{model.model}, AUC {model.auc.value:.3f}" for model in models)
    return _svg("roc", (_WIDTH / 2 - 0.1, 4.55 + 0.17 * len(models)), draw, f"ROC curves. {words}.")


def decision(scorecard: Scorecard, models: Sequence[ModelResult]) -> str:
    """Net benefit of the first seed over the threshold probability, with treating all and none."""

    def draw(figure: Figure) -> None:
        axes = figure.subplots()
        everybody: dict[str, Any] = {"color": _QUIET, "linewidth": 1.2, "label": "call every lesion malignant"}
        axes.plot(scorecard.thresholds, scorecard.treat_all, **everybody)
        axes.axhline(0, color=_TEXT, linewidth=1.2, linestyle=(0, (1, 2)), label="call none malignant")
        for model in models:
            axes.plot(scorecard.thresholds, model.net_benefit, **_line(model))
        benefits = [benefit for model in models for benefit in model.net_benefit]
        top = max([0.05, *benefits, *scorecard.treat_all])
        axes.set_ylim(-0.25 * top, 1.06 * top)
        axes.set(xlabel="Threshold probability", ylabel="Net benefit")
        axes.grid(axis="y", linewidth=0.6)
        _legend_below(figure, axes)

    return _svg("decision", (_WIDTH / 2 - 0.1, 4.89 + 0.17 * len(models)), draw, _decision_words(scorecard, models))


def calibration(models: Sequence[ModelResult]) -> str:
    """Observed against predicted share of malignant lesions, with Wilson intervals; one panel a model."""

    def draw(figure: Figure) -> None:
        panels = figure.subplots(1, len(models), sharex=True, sharey=True, squeeze=False)[0]
        for axes, model in zip(panels, models, strict=True):
            _calibration_panel(axes, model)
        panels[0].set_ylabel("Observed share malignant")
        figure.supxlabel("Predicted probability, mean of the bin", fontsize=9)

    words = "; ".join(f"{model.model}, expected calibration error {model.ece.value:.3f}" for model in models)
    size = (_WIDTH * max(len(models), 2) / 4, 2.95)
    return _svg("calibration", size, draw, f"Calibration curves, one panel a model. {words}.")


def selection(stability: SelectionStability, family: Family) -> str:
    """How often the most frequent features were selected, as bars."""
    shown = list(stability.frequency.items())[:FEATURES_SHOWN]
    names = [display_name(feature) if is_canonical(feature) else feature for feature, _ in shown]

    def draw(figure: Figure) -> None:
        axes = figure.subplots()
        bars = axes.barh(range(len(shown)), [100 * share for _, share in shown], height=0.68, color=COLOURS[family])
        axes.bar_label(bars, [f"{share:.0%}" for _, share in shown], padding=3, color=_TEXT, fontsize=8.5)
        axes.set_yticks(range(len(shown)), [_wrapped(name) for name in names])
        axes.set_ylim(len(shown) - 0.4, -0.6)
        axes.set_xlim(0, 108)
        axes.set_xticks([0, 25, 50, 75, 100])
        axes.tick_params(axis="y", length=0)
        axes.set_xlabel("Selected in … % of folds and seeds")

    words = "; ".join(f"{name}, {share:.0%}" for name, (_, share) in zip(names, shown, strict=True))
    return _svg("selection", (_WIDTH, 0.24 * len(shown) + 0.7), draw, f"How often features were selected. {words}.")


def _stacked(
    heights: Sequence[float], groups: Sequence[Sequence[ModelResult]], gap: float
) -> tuple[list[float], float]:
    """Middle of each row and the end of the last, in inches from the top."""
    places, edge = [], 0.0
    remaining = iter(heights)
    for group in groups:
        for _ in group:
            height = next(remaining)
            places.append(edge + height / 2)
            edge += height
        edge += gap
    return places, edge - gap


def _forest_row(axes: Axes, model: ModelResult, place: float, is_baseline: bool) -> None:
    colour = _ink(model.family)
    auc = model.auc
    axes.plot([auc.low, auc.high], [place, place], color=colour, linewidth=1.8, solid_capstyle="butt")
    axes.plot(
        [auc.value],
        [place],
        color=colour,
        marker=MARKERS[model.family],
        markersize=6,
        markeredgewidth=1.5,
        markerfacecolor=_PAGE if is_baseline else colour,
    )
    words = f"{auc.value:.3f}  ({auc.low:.3f} to {auc.high:.3f})"
    axes.annotate(
        words, (1.01, place), xycoords=("axes fraction", "data"), va="center", fontsize=8.5, annotation_clip=False
    )


def _forest_words(scorecard: Scorecard, rows: Sequence[ModelResult]) -> str:
    ordered = sorted(rows, key=lambda model: -model.auc.value)
    return (
        f"Areas under the ROC curve of {len(rows)} models with intervals, the numbers of the table below. "
        f"Highest: {ordered[0].model}, {ordered[0].auc.value:.3f}; lowest: {ordered[-1].model}, "
        f"{ordered[-1].auc.value:.3f}. A dashed line marks the best classical baseline, {scorecard.best_baseline}."
    )


def _decision_words(scorecard: Scorecard, models: Sequence[ModelResult]) -> str:
    middle = len(scorecard.thresholds) // 2
    words = "; ".join(f"{model.model}, {model.net_benefit[middle]:.3f}" for model in models)
    return (
        f"Decision curves. Net benefit at a threshold probability of {scorecard.thresholds[middle]:.2f}: {words}; "
        f"calling every lesion malignant, {scorecard.treat_all[middle]:.3f}; calling none malignant, 0."
    )


def _calibration_panel(axes: Axes, model: ModelResult) -> None:
    colour = _ink(model.family)
    axes.plot([0, 1], [0, 1], color=_LINE, linewidth=1.2, zorder=0)
    for one in model.calibration:
        interval = binomtest(round(one.observed * one.lesions), one.lesions).proportion_ci(_CONFIDENCE, "wilson")
        axes.plot([one.predicted] * 2, [interval.low, interval.high], color=colour, linewidth=1, alpha=0.6)
    predicted, observed = ([getattr(one, name) for one in model.calibration] for name in ("predicted", "observed"))
    axes.plot(predicted, observed, color=colour, marker=MARKERS[model.family], markersize=4.5, linewidth=1.4)
    axes.set(xlim=(-0.03, 1.03), ylim=(-0.03, 1.03), aspect="equal", xticks=[0, 0.5, 1], yticks=[0, 0.5, 1])
    axes.set_title(f"{textwrap.fill(model.model, 25)}\nECE {model.ece.value:.3f}", fontsize=8.5)


def _line(model: ModelResult) -> dict[str, Any]:
    style = {"color": _ink(model.family), "linestyle": DASHES[model.family]}
    return {**style, "label": f"{textwrap.shorten(model.model, 52, placeholder='…')}"}


def _ink(family: Family) -> str:
    return _QUIET if family == "ablation" else COLOURS[family]


def _legend_below(figure: Figure, axes: Axes) -> None:
    figure.legend(*axes.get_legend_handles_labels(), loc="outside lower left", handlelength=2.6, labelspacing=0.3)


def _wrapped(label: str) -> str:
    """On two lines where it is long: an ablation after its parent's name."""
    if len(label) <= _LABEL_CHARACTERS:
        return label
    return label.replace(": ", ":\n") if ": " in label else textwrap.fill(label, _LABEL_CHARACTERS)


def _svg(name: str, inches: tuple[float, float], draw: Callable[[Figure], None], words: str) -> str:
    """A drawing for the page: described in words, without ids, fonts and addresses that it would share with others."""
    return _embedded(drawn(_STYLE, inches, draw, "svg", {"Date": None}).decode(), name, words)


def _embedded(svg: str, name: str, words: str) -> str:
    svg = svg[svg.index("<svg") :]
    svg = re.sub(r"<metadata>.*?</metadata>|<style.*?</style>|<!--.*?-->", "", svg, flags=re.DOTALL)
    svg = re.sub(r' (xmlns(:xlink)?|version)="[^"]*"', "", svg).replace("xlink:href", "href")
    svg = re.sub(r'(\bid="|href="#|url\(#)', rf"\g<1>{name}-", svg)
    svg = re.sub(r"font-family: [^;\"]*;? ?", "", svg)
    for colour, variable in _VARIABLES.items():
        svg = svg.replace(colour, variable)
    return svg.replace("<svg ", f'<svg role="img" aria-label="{html.escape(words)}" ', 1)
