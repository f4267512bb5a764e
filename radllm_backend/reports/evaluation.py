"""The report of an evaluation: every model with its intervals on one page that needs nothing but itself."""

from __future__ import annotations

from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from statistics import mean, median

from markupsafe import Markup

from radllm_backend.errors import RadllmError
from radllm_backend.files import write_atomically
from radllm_backend.learning.metrics import SelectionStability
from radllm_backend.learning.options import Family
from radllm_backend.learning.scorecard import ModelResult, Outcome, Scorecard, out_of_fold_rows
from radllm_backend.models.prediction import RESEARCH_USE_ONLY
from radllm_backend.records import Estimate
from radllm_backend.reports import evaluation_plots as plots
from radllm_backend.reports._page import page_template
from radllm_backend.reports.checklists import checklists

MODEL_FAMILY_TITLES: dict[Family, str] = {
    "classical": "Classical models",
    "frozen": "Frozen language model",
    "lora": "Language model with LoRA",
    "fusion": "Fusion of language model and radiomics",
    "ablation": "Ablations",
}
"""In the order of the page."""
_READS_PROMPTS: tuple[Family, ...] = ("frozen", "lora", "fusion")
_LEVEL = 0.05
_MOST_VALUES = 4


def write_evaluation(folder: Path, scorecard: Scorecard, outcomes: Sequence[Outcome]) -> None:
    """Write ``evaluation.json``, ``out_of_fold.csv`` and ``evaluation.html``, each whole or not at all.

    The numbers come first: they took long, and a page can be drawn again. The same scorecard gives the same bytes.

    Args:
        folder: made if missing.
        outcomes: what the scorecard sums up; no patient's name is in them.

    Raises:
        RadllmError: the folder cannot be written, or matplotlib is missing (the numbers are written then).
    """
    try:
        folder.mkdir(parents=True, exist_ok=True)
    except OSError as error:
        raise RadllmError(
            f"The evaluation cannot be written to {folder.name} ({error.strerror or error}): choose another folder."
        ) from error
    write_atomically(folder / "evaluation.json", scorecard.model_dump_json(indent=2) + "\n")
    write_atomically(folder / "out_of_fold.csv", "\n".join(out_of_fold_rows(outcomes)) + "\n")
    write_atomically(folder / "evaluation.html", evaluation_html(scorecard))


def evaluation_html(scorecard: Scorecard) -> str:
    """One self-contained page: no network, no script, plots inside.

    Raises:
        RadllmError: matplotlib is not installed.
    """
    groups = _by_family(scorecard)
    template = page_template(
        "evaluation.html.jinja", three=_three, signed=_signed, p_value=_p_value, duration=_duration, joined=_joined
    )
    return template.render(
        card=scorecard,
        notice=RESEARCH_USE_ONLY,
        findings=_null_findings(scorecard) if scorecard.shuffled_labels else _findings(scorecard),
        fewer_seeds=any(model.seeds < len(scorecard.seeds) for model in scorecard.models),
        groups=[(MODEL_FAMILY_TITLES[group[0].family], group) for group in groups],
        families=[title[0].lower() + title[1:] for title in (MODEL_FAMILY_TITLES[group[0].family] for group in groups)],
        plots={name: Markup(svg) for name, svg in _plots(scorecard, groups).items()},
        ablations=_ablations(scorecard),
        choices=[(model, _choices(model)) for group in groups for model in group],
        charted=_charted(scorecard),
        most_features=plots.FEATURES_SHOWN,
        checklists=checklists(scorecard),
        commonest=max(scorecard.malignant, scorecard.lesions - scorecard.malignant) / scorecard.lesions,
    )


def _by_family(scorecard: Scorecard) -> list[list[ModelResult]]:
    """The models of each family that has some, the highest AUC first."""
    families = ([model for model in scorecard.models if model.family == family] for family in MODEL_FAMILY_TITLES)
    return [sorted(models, key=lambda model: -model.auc.value) for models in families if models]


def _plots(scorecard: Scorecard, groups: Sequence[Sequence[ModelResult]]) -> dict[str, str]:
    """Curves of the best of each family only: twenty lines are no picture."""
    best = [group[0] for group in groups if group[0].family != "ablation"]
    drawings = {
        "forest": plots.forest(scorecard, groups),
        "roc": plots.roc(best),
        "decision": plots.decision(scorecard, best),
        "calibration": plots.calibration(best),
    }
    charted = _charted(scorecard)
    if charted is not None:
        drawings["selection"] = plots.selection(charted, _named(scorecard, charted.model).family)
    return drawings


def _named(scorecard: Scorecard, name: str) -> ModelResult:
    return next(model for model in scorecard.models if model.model == name)


def _charted(scorecard: Scorecard) -> SelectionStability | None:
    """The selection of the model with the highest AUC among those that select."""
    selecting = [stability for stability in scorecard.stability if stability.frequency]
    return max(selecting, key=lambda one: _named(scorecard, one.model).auc.value, default=None)


# --- what is said first ---------------------------------------------------------------------------------------------


def _findings(scorecard: Scorecard) -> list[str]:
    """Who did best and by how much, the language model beside the best classical baseline, win or lose."""
    baseline = _named(scorecard, scorecard.best_baseline)
    judged = [baseline, *(model for model in scorecard.models if model.family != "ablation")]
    best = max(judged, key=lambda model: model.auc.value)  # the first of equals: the baseline
    rivals = _with_language_model(judged)
    if not rivals:
        return [f"{_reached(best)}, did best. No language model took part in this run."]
    compared = rivals[0] if best is baseline else best
    rest = [_alone(model, baseline) for model in rivals if model is not compared]
    return [_headline(compared, baseline), _detail(compared, baseline), *rest, *_of_ablations(scorecard, best)]


def _headline(model: ModelResult, baseline: ModelResult) -> str:
    """One sentence on the best model with a language model and the best without: the winner, its lead, its interval."""
    lead = model.difference or Estimate(value=0, low=0, high=0)
    won = lead.value > 0
    if not won:
        lead = Estimate(value=-lead.value, low=-lead.high, high=-lead.low)
    winner, kind, loser, other = (
        (model, "which has a language model", baseline, "classical model")
        if won
        else (baseline, "a classical model", model, "model with a language model")
    )
    return (
        f"“{winner.model}”, {kind}, did best: its AUC is {lead.value:.3f} above that of the best {other}, "
        f"“{loser.model}” ({_interval(lead)}, which {_zero(lead)} zero)."
    )


def _detail(model: ModelResult, baseline: ModelResult) -> str:
    return f"{_reached(baseline)}; {_reached(model)}. {_conclusion(model)}"


def _alone(model: ModelResult, baseline: ModelResult) -> str:
    """How far the language model with LoRA alone is from the best baseline."""
    if model.difference is None:
        return _reached(model)
    side = "below" if model.difference.value < 0 else "above"
    return (
        f"{_reached(model)}, is the language model with LoRA alone: {abs(model.difference.value):.3f} {side} "
        f"“{baseline.model}” ({_interval(model.difference)}). {_conclusion(model)}"
    )


def _with_language_model(judged: Sequence[ModelResult]) -> list[ModelResult]:
    """The strongest model that reads prompts, and the strongest with LoRA alone where that is another."""
    reading = sorted((one for one in judged if one.family in _READS_PROMPTS), key=lambda one: -one.auc.value)
    lora = [one for one in reading if one.family == "lora"]
    return list({one.model: one for one in [*reading[:1], *lora[:1]]}.values())


def _reached(model: ModelResult) -> str:
    auc = model.auc
    return f"“{model.model}”, AUC {_three(auc.value)} (95% interval {_three(auc.low)} to {_three(auc.high)})"


def _interval(difference: Estimate) -> str:
    return f"95% interval of the difference {_signed(difference.low)} to {_signed(difference.high)}"


def _zero(difference: Estimate) -> str:
    return "includes" if difference.low <= 0 <= difference.high else "excludes"


def _conclusion(model: ModelResult) -> str:
    """What may be concluded of a model with a language model from its difference to the best baseline."""
    difference = model.difference
    if difference is None or _zero(difference) == "includes":
        return "The interval includes zero: this run does not tell the two apart."
    if difference.high < 0:
        return "The interval excludes zero: the language model did worse than the classical model."
    if model.p_holm is None or model.p_holm >= _LEVEL:
        corrected = "" if model.p_holm is None else f" (p {_p_value(model.p_holm)})"
        return (
            "The interval excludes zero, but the difference does not withstand the correction for the number of models "
            f"compared{corrected}: this run does not show that the language model helps."
        )
    return (
        "The interval excludes zero, also after the correction for the number of models compared "
        f"(p {_p_value(model.p_holm)}). Picked as the best after the fact, it looks better here than it would on new "
        "lesions."
    )


def _of_ablations(scorecard: Scorecard, best: ModelResult) -> list[str]:
    higher = [one for one in scorecard.models if one.family == "ablation" and one.auc.value > best.auc.value]
    if not higher:
        return []
    highest = max(higher, key=lambda model: model.auc.value)
    return [f"An ablation, “{highest.model}”, has a higher AUC than all of these: {_three(highest.auc.value)}."]


def _null_findings(scorecard: Scorecard) -> list[str]:
    """Of shuffled labels: which intervals miss 0.5."""
    missing = [model for model in scorecard.models if not model.auc.low <= 0.5 <= model.auc.high]
    count = len(scorecard.models)
    counted = f"The AUC interval contains 0.5 for {count - len(missing)} of {count} models."
    if not missing:
        return [counted, "Nothing leaks that this test can find."]
    named = "; ".join(_reached(model) for model in missing)
    chance = "In one run of twenty" if min(model.seeds for model in scorecard.models) > 1 else "For one model in twenty"
    return [counted, f"Not for {named}. {chance} that is so by chance; otherwise something leaks."]


# --- rows -----------------------------------------------------------------------------------------------------------


@dataclass(frozen=True)
class _Ablation:
    """A model with one thing changed, beside the model it was changed from."""

    change: str
    origin: str
    result: ModelResult
    parent: ModelResult | None
    """None where it took no part."""

    @property
    def difference(self) -> float | None:
        """Of AUCs on the seeds that both ran on, which are the first ones of either."""
        if self.parent is None:
            return None
        pairs = zip(self.result.auc_by_seed, self.parent.auc_by_seed, strict=False)
        return mean(changed - unchanged for changed, unchanged in pairs)


def _ablations(scorecard: Scorecard) -> list[_Ablation]:
    """By parent; an ablation is named "parent: what was changed"."""
    models = {model.model: model for model in scorecard.models}
    rows = []
    for model in scorecard.models:
        if model.family == "ablation":
            origin, _, change = model.model.rpartition(": ")
            rows.append(_Ablation(change, origin, model, models.get(origin)))
    return rows


def _choices(model: ModelResult) -> list[tuple[str, str]]:
    """What the inner folds of all folds and seeds chose, by hyperparameter."""
    names = dict.fromkeys(name for chosen in model.chosen for name in chosen)
    return [(name, _tallied([chosen[name] for chosen in model.chosen if name in chosen])) for name in names]


def _tallied(values: Sequence[float | int | str]) -> str:
    """A few values with how often each was chosen; of many numbers the median and the range."""
    counts = Counter(values)
    if len(counts) > _MOST_VALUES:
        numbers = [value for value in values if not isinstance(value, str)]
        if len(numbers) == len(values):
            return f"{median(numbers):.3g} ({min(numbers):.3g} to {max(numbers):.3g})"
    commonest = counts.most_common(_MOST_VALUES)
    words = ", ".join(f"{_plain(value)} ({times}×)" if len(counts) > 1 else _plain(value) for value, times in commonest)
    return f"{words}, …" if len(counts) > len(commonest) else words


# --- numbers --------------------------------------------------------------------------------------------------------


def _plain(value: float | int | str) -> str:
    return value if isinstance(value, str) else f"{value:.3g}"


def _three(number: float) -> str:
    return f"{number:.3f}".replace("-", "−")


def _signed(number: float) -> str:
    """Three decimals and a sign, none for what rounds to zero."""
    return "0.000" if abs(number) < 0.0005 else f"{number:+.3f}".replace("-", "−")


def _p_value(p: float) -> str:
    return "< 0.001" if p < 0.001 else f"{p:.3f}"


def _duration(seconds: float) -> str:
    """About two digits: 4.0 s, 12 min, 3.5 h."""
    if seconds < 60:
        return f"{seconds:.1f} s" if seconds < 10 else f"{seconds:.0f} s"
    return f"{seconds / 60:.0f} min" if seconds < 5400 else f"{seconds / 3600:.1f} h"


def _joined(names: Sequence[object]) -> str:
    return ", ".join(map(str, names))
