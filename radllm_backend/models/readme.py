"""The model card for people: what the model reads, what it learned from, how well it does, in Markdown."""

from __future__ import annotations

from functools import cache

from jinja2 import Environment, PackageLoader, StrictUndefined, Template

from radllm_backend.features.descriptors import descriptor_name
from radllm_backend.features.names import display_name
from radllm_backend.models.base_in_words import base_in_words, layers_in_words
from radllm_backend.models.bundle import EvaluationSummary, ModelCard
from radllm_backend.models.cautions import rules
from radllm_backend.models.conformal import DEFAULT_CONFIDENCE, band
from radllm_backend.models.prediction import RESEARCH_USE_ONLY
from radllm_backend.records import Estimate


def model_readme(card: ModelCard) -> str:
    """The ``README.md`` of a bundle; the same card gives the same text."""
    uncertain = band(card.conformal, DEFAULT_CONFIDENCE).around(card.threshold) if card.conformal else None
    text = _template().render(
        card=card,
        notice=RESEARCH_USE_ONLY,
        own=card.performance[:1],
        reads=_reads(card),
        how=_how(card),
        band=uncertain,
        estimate=_estimate,
        verdict=_verdict,
        depths=_depths,
        rules=rules(card),
        display_name=display_name,
        descriptor_name=descriptor_name,
    )
    return _without_double_blanks(text)


@cache
def _template() -> Template:
    environment = Environment(
        loader=PackageLoader("radllm_backend.models", ""), undefined=StrictUndefined, trim_blocks=True, autoescape=False
    )
    return environment.get_template("readme.md.jinja")


def _reads(card: ModelCard) -> str:
    parts = [
        f"{len(rows)} {what}"
        for rows, what in (
            (card.features, "radiomics features of a lesion"),
            (card.descriptors, "of the radiologist's descriptors"),
        )
        if rows
    ]
    return " and ".join(parts)


def _how(card: ModelCard) -> str:
    """The way from the prompt to the score, in two sentences at most."""
    base, adapter = base_in_words(card.base.name, layers_in_words(card.layers)), card.adapter
    model = f"{base} with a LoRA adapter (rank {adapter.rank}, all linear layers)" if adapter else f"Frozen {base}"
    if card.head is None:
        return f"{model}, and a linear head on the last token."
    pooling = "mean of all tokens" if card.head.pooling == "mean" else "last token"
    state = f"the hidden state after the last layer that is read ({pooling})"
    if card.head.kind == "weighted mean":
        return (
            f"{model} reads the prompt; logistic regression on {state} and logistic regression on the same features "
            f"each give a probability, and the language model's counts {card.head.weight:.0%} in their mean."
        )
    kind = "linear classifier" if card.head.kind == "linear" else card.head.kind
    # Registered under what they are called in tables; those of the family "frozen" see nothing but hidden states.
    beside = "" if card.method.startswith("frozen language model") else " and the features"
    go = "go" if beside else "goes"
    return f"{model} reads the prompt; {state}{beside} {go} into a {kind}."


def _verdict(evaluation: EvaluationSummary) -> str:
    """Whether the best model with a language model reaches the best classical one; said plainly."""
    fused = [row for row in evaluation.trials if row.model.startswith("fusion")]
    if not fused or fused[0].difference is None:
        return "No fusion took part."
    best, difference = fused[0], fused[0].difference
    reached = "is at least as good as" if difference.value >= 0 else "**is not as good as**"
    sure = "includes" if difference.low <= 0 <= difference.high else "excludes"
    return (
        f"The best fusion, {best.model}, {reached} the best classical baseline on the same folds "
        f"({difference.value:+.3f}, 95% interval {difference.low:+.3f} to {difference.high:+.3f}, which {sure} zero)."
    )


def _depths(evaluation: EvaluationSummary) -> str:
    """How much of the language model was read, as a further sentence; empty where there was none."""
    if all(row.model.endswith(" features") for row in evaluation.trials):
        return ""
    if not evaluation.depths:
        return " Its language models read the last layer alone."
    return f" Inner folds chose how many layers are read: {', '.join(map(str, evaluation.depths))}."


def _estimate(figure: Estimate) -> str:
    return f"{figure.value:.3f} ({figure.low:.3f} to {figure.high:.3f})"


def _without_double_blanks(text: str) -> str:
    while "\n\n\n" in text:
        text = text.replace("\n\n\n", "\n\n")
    return text
