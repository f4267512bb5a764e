"""The report of a prediction as one page that needs nothing but itself."""

from __future__ import annotations

import base64
from datetime import datetime
from typing import TYPE_CHECKING

from radllm_backend.models.prediction import RESEARCH_USE_ONLY, Prediction, percent
from radllm_backend.reports._page import page_template
from radllm_backend.reports.content import STRIP_KEY, content, signed, significant
from radllm_backend.reports.geometry import probability_bar
from radllm_backend.reports.key_image import OUTLINE, key_image

if TYPE_CHECKING:
    from radllm_backend.imaging.lesion import Lesion
    from radllm_backend.models.bundle import ModelCard

_BAR_START, _BAR_WIDTH = 10, 380
"""In units of the bar's drawing, which is 400 wide."""


def report_html(
    prediction: Prediction, lesion: Lesion | None = None, card: ModelCard | None = None, *, made: datetime
) -> str:
    """One self-contained page: no network, no script, pictures inside.

    Args:
        lesion: for the key image; without it the page has none.
        card: of the model; without it the page has nothing of the training lesions.
        made: when; the page holds no other time.
    """
    template = page_template("report.html.jinja", percent=percent, significant=significant, signed=signed)
    return template.render(
        report=content(prediction, card, made),
        prediction=prediction,
        card=card,
        bar=probability_bar(prediction, _BAR_START, _BAR_WIDTH),
        notice=RESEARCH_USE_ONLY,
        strip_key=STRIP_KEY,
        picture=base64.b64encode(key_image(lesion)).decode() if lesion else None,
        outline="#{:02x}{:02x}{:02x}".format(*OUTLINE),
        is_volume=lesion is not None and lesion.image.GetDimension() == 3,
    )
