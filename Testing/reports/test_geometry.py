"""The drawings of a report as numbers: every value finds its place in them."""

from __future__ import annotations

from hypothesis import given
from hypothesis import strategies as st

from radllm_backend.reports.geometry import strip
from Testing.support.report_cases import NAMES, summary


@given(value=st.floats(allow_nan=False, allow_infinity=False), apart=st.floats(-1e6, 1e6))
def test_a_strip_holds_any_value(value: float, apart: float) -> None:
    drawing = strip(summary(NAMES[0], apart), value)
    for lane in drawing.lanes:
        places = (lane.whiskers[0], lane.box[0], lane.median, lane.box[1], lane.whiskers[1])
        assert list(places) == sorted(places)
        assert 0 < places[0] <= places[-1] < 100
    assert 0 <= drawing.mark <= 100
    if drawing.beyond:
        assert drawing.mark == (0 if drawing.beyond < 0 else 100)
        assert 0 < drawing.arrow < 100  # an arrowhead points out of the drawing
    benign, malignant = drawing.lanes
    assert (benign.median < malignant.median) == (apart > 0) or abs(apart) < 1e-6
