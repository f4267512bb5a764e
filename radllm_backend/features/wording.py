"""Plain-language findings from features: where a lesion lies among the training lesions, in a radiologist's words."""

from __future__ import annotations

import re
from bisect import bisect_left, bisect_right
from collections.abc import Mapping, Sequence

from radllm_backend.features.names import display_name, split_name

LOW, HIGH = 20.0, 80.0
"""Percentiles between which a value is ordinary: only what lies beyond them is a finding."""

_STEP = 5
_MOST = 99
_TITLE_CASE = re.compile(r"\b[A-Z][a-z]+\b")

# (what a low value means, what a high value means): the features of which that is true. After the definitions of
# PyRadiomics (van Griethuysen et al., Cancer Res 77 (2017) e104, and its documentation). A feature whose meaning hangs
# on the lesion's size or on its grey-level bins too (energies, emphases of grey levels or of large areas,
# non-uniformities, NGTDM coarseness and busyness) has no words.
_MEANINGS: dict[tuple[str, str], str] = {
    ("irregular shape", "round shape"): "shape2D_Sphericity shape_Sphericity",
    ("elongated shape", "shape as wide as long"): "shape2D_Elongation shape_Elongation",
    ("flat shape", "shape as deep as long"): "shape_Flatness",
    ("small lesion", "large lesion"): """
        shape2D_MaximumDiameter shape2D_MeshSurface shape2D_PixelSurface shape_Maximum2DDiameterColumn
        shape_Maximum2DDiameterRow shape_Maximum2DDiameterSlice shape_Maximum3DDiameter shape_MeshVolume
        shape_VoxelVolume""",
    ("short lesion", "long lesion"): "shape2D_MajorAxisLength shape_MajorAxisLength",
    ("narrow lesion", "wide lesion"): "shape2D_MinorAxisLength shape_MinorAxisLength",
    ("thin lesion", "thick lesion"): "shape_LeastAxisLength",
    ("short outline", "long outline"): "shape2D_Perimeter",
    ("outline short for its area", "outline long for its area"): "shape2D_PerimeterSurfaceRatio",
    ("small surface", "large surface"): "shape_SurfaceArea",
    ("surface small for its volume", "surface large for its volume"): "shape_SurfaceVolumeRatio",
    ("dark lesion", "bright lesion"): "firstorder_Mean firstorder_Median",
    ("dark parts very dark", "dark parts not very dark"): "firstorder_10Percentile firstorder_Minimum",
    ("bright parts not very bright", "bright parts very bright"): "firstorder_90Percentile firstorder_Maximum",
    ("narrow range of grey levels", "wide range of grey levels"): """
        firstorder_InterquartileRange firstorder_MeanAbsoluteDeviation firstorder_Range
        firstorder_RobustMeanAbsoluteDeviation firstorder_Variance""",
    ("grey levels with a dark tail", "grey levels with a bright tail"): "firstorder_Skewness",
    ("grey levels evenly spread", "grey levels peaked"): "firstorder_Kurtosis",
    ("homogeneous texture", "heterogeneous texture"): """
        firstorder_Entropy glcm_JointEntropy glcm_SumEntropy glcm_DifferenceEntropy gldm_DependenceEntropy
        gldm_SmallDependenceEmphasis glrlm_RunEntropy glszm_ZoneEntropy""",
    ("heterogeneous texture", "homogeneous texture"): """
        firstorder_Uniformity glcm_JointEnergy glcm_MaximumProbability gldm_LargeDependenceEmphasis""",
    ("smooth texture", "rough texture"): "glcm_Contrast glcm_DifferenceAverage glcm_DifferenceVariance",
    ("rough texture", "smooth texture"): "glcm_Id glcm_Idm glcm_Idn glcm_Idmn",
    ("coarse texture", "fine texture"): """
        glrlm_RunPercentage glrlm_ShortRunEmphasis glszm_SmallAreaEmphasis glszm_ZonePercentage""",
    ("fine texture", "coarse texture"): "glrlm_LongRunEmphasis",
    ("simple texture", "complex texture"): "ngtdm_Complexity",
    ("low local contrast", "high local contrast"): "ngtdm_Contrast",
}
_WORDS = {feature: words for words, features in _MEANINGS.items() for feature in features.split()}


def percentile(quantiles: Sequence[float], value: float) -> float:
    """Where a value lies among the training lesions: 0 below all of them to 100 above all, ties by their middle.

    Args:
        quantiles: of the training lesions, equally spaced from the smallest to the largest value.
        value: a finite number in the same unit.
    """
    below, not_above = bisect_left(quantiles, value), bisect_right(quantiles, value)
    return 100 * (below + not_above) / (2 * len(quantiles))


def finding(feature: str, percentile: float) -> str:
    """One clause: 'irregular shape: sphericity lower than 95% of the training lesions'.

    The number is rounded down to a multiple of 5 (99 at the very end), so that it is both stable and never too much.

    Args:
        feature: a PyRadiomics name.
        percentile: of its value among the training lesions, 0 to 100.

    Raises:
        RadllmError: a name outside the canonical table.
        ValueError: a percentile outside 0 to 100.
    """
    if not 0 <= percentile <= 100:
        raise ValueError(f"A percentile lies between 0 and 100, and this is {percentile}.")
    name = _TITLE_CASE.sub(lambda word: word[0].lower(), display_name(feature))
    if LOW <= percentile <= HIGH:
        return f"{name} within the middle of the training lesions"
    low = percentile < LOW
    image, family, short_name = split_name(feature)
    words = _WORDS.get(f"{family}_{short_name}") if image == "original" else None  # a filtered image looks like nothing
    meaning = f"{words[0 if low else 1]}: " if words else ""
    share = _rounded_down(100 - percentile if low else percentile)
    return f"{meaning}{name} {'lower' if low else 'higher'} than {share}% of the training lesions"


def findings(percentiles: Mapping[str, float]) -> list[str]:
    """The clauses of the features that stand out, the strongest first; nothing of those in the middle.

    Args:
        percentiles: of a lesion's values by PyRadiomics name. Ties keep this order.
    """
    notable = [(name, value) for name, value in percentiles.items() if not LOW <= value <= HIGH]
    notable.sort(key=lambda item: -abs(item[1] - 50))
    return [finding(name, value) for name, value in notable]


def _rounded_down(share: float) -> int:
    """80, 85, 90, 95 or 99; a share that is a hair below one of them by floating point is that one."""
    exact = round(share, 6)
    return _MOST if exact >= _MOST else int(exact // _STEP) * _STEP
