"""Why: how much each feature moved a prediction."""

from __future__ import annotations

from collections.abc import Callable, Sequence

from radllm_backend.prompt import PromptTemplate

Score = Callable[[list[str]], list[float]]
"""Log-odds of prompts."""


def occlusion_effects(
    template: PromptTemplate, standardised: Sequence[float], logit: float, score: Score
) -> list[float]:
    """Change of the log-odds when each feature alone is put back to the training mean (0 after standardising).

    One-at-a-time occlusion (Zeiler and Fergus, ECCV 2014, on pixels): exact for each feature by itself, but the effects
    of features that act together do not add up to the whole difference.

    Args:
        standardised: values in the template's order.
        logit: the log-odds of the lesion as it is.
        score: scores the prompts, one per feature.
    """
    occluded = []
    for position in range(len(standardised)):
        values = list(standardised)
        values[position] = 0.0
        occluded.append(template.render(values))
    return [logit - without for without in score(occluded)]
