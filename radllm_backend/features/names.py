"""The canonical table: PyRadiomics' feature names and the words a prompt or a report uses for them.

Nothing outside this table can be named in a prompt. The table lists PyRadiomics 3's features (without
the deprecated ones); a filtered image contributes a prefix built from a closed grammar.
"""

from __future__ import annotations

import re
from collections import Counter
from functools import cache

from radllm_backend.errors import RadllmError

_MATRIX_TITLES = {"glcm": "GLCM", "gldm": "GLDM", "glrlm": "GLRLM", "glszm": "GLSZM", "ngtdm": "NGTDM"}
FAMILY_TITLES = {"shape2D": "Shape (2D)", "shape": "Shape (3D)", "firstorder": "First order", **_MATRIX_TITLES}
"""PyRadiomics' feature classes in this project's order, with their titles."""

FAMILIES: dict[str, tuple[str, ...]] = {
    family: tuple(names.split())
    for family, names in {
        "shape2D": """
            Elongation MajorAxisLength MaximumDiameter MeshSurface MinorAxisLength Perimeter PerimeterSurfaceRatio
            PixelSurface Sphericity""",
        "shape": """
            Elongation Flatness LeastAxisLength MajorAxisLength Maximum2DDiameterColumn Maximum2DDiameterRow
            Maximum2DDiameterSlice Maximum3DDiameter MeshVolume MinorAxisLength Sphericity SurfaceArea
            SurfaceVolumeRatio VoxelVolume""",
        "firstorder": """
            10Percentile 90Percentile Energy Entropy InterquartileRange Kurtosis Maximum MeanAbsoluteDeviation Mean
            Median Minimum Range RobustMeanAbsoluteDeviation RootMeanSquared Skewness TotalEnergy Uniformity
            Variance""",
        "glcm": """
            Autocorrelation ClusterProminence ClusterShade ClusterTendency Contrast Correlation DifferenceAverage
            DifferenceEntropy DifferenceVariance Id Idm Idmn Idn Imc1 Imc2 InverseVariance JointAverage JointEnergy
            JointEntropy MCC MaximumProbability SumAverage SumEntropy SumSquares""",
        "gldm": """
            DependenceEntropy DependenceNonUniformity DependenceNonUniformityNormalized DependenceVariance
            GrayLevelNonUniformity GrayLevelVariance HighGrayLevelEmphasis LargeDependenceEmphasis
            LargeDependenceHighGrayLevelEmphasis LargeDependenceLowGrayLevelEmphasis LowGrayLevelEmphasis
            SmallDependenceEmphasis SmallDependenceHighGrayLevelEmphasis SmallDependenceLowGrayLevelEmphasis""",
        "glrlm": """
            GrayLevelNonUniformity GrayLevelNonUniformityNormalized GrayLevelVariance HighGrayLevelRunEmphasis
            LongRunEmphasis LongRunHighGrayLevelEmphasis LongRunLowGrayLevelEmphasis LowGrayLevelRunEmphasis
            RunEntropy RunLengthNonUniformity RunLengthNonUniformityNormalized RunPercentage RunVariance
            ShortRunEmphasis ShortRunHighGrayLevelEmphasis ShortRunLowGrayLevelEmphasis""",
        "glszm": """
            GrayLevelNonUniformity GrayLevelNonUniformityNormalized GrayLevelVariance HighGrayLevelZoneEmphasis
            LargeAreaEmphasis LargeAreaHighGrayLevelEmphasis LargeAreaLowGrayLevelEmphasis LowGrayLevelZoneEmphasis
            SizeZoneNonUniformity SizeZoneNonUniformityNormalized SmallAreaEmphasis SmallAreaHighGrayLevelEmphasis
            SmallAreaLowGrayLevelEmphasis ZoneEntropy ZonePercentage ZoneVariance""",
        "ngtdm": "Busyness Coarseness Complexity Contrast Strength",
    }.items()
}

_SPELLED_OUT = {
    "10Percentile": "10th Percentile",
    "90Percentile": "90th Percentile",
    "Id": "Inverse Difference",
    "Idm": "Inverse Difference Moment",
    "Idmn": "Inverse Difference Moment Normalized",
    "Idn": "Inverse Difference Normalized",
    "Imc1": "Informational Measure of Correlation 1",
    "Imc2": "Informational Measure of Correlation 2",
    "MCC": "Maximal Correlation Coefficient",
    "Maximum2DDiameterColumn": "Maximum 2D Diameter in a Column",
    "Maximum2DDiameterRow": "Maximum 2D Diameter in a Row",
    "Maximum2DDiameterSlice": "Maximum 2D Diameter in a Slice",
    "Maximum3DDiameter": "Maximum 3D Diameter",
}
# A 2D and a first-order name keep their plain words; the same words in another family say which one is meant.
_PLAIN_FAMILIES = ("shape2D", "firstorder")
_OCCURRENCES = Counter(feature for names in FAMILIES.values() for feature in names)

_SUBBANDS = re.compile(r"^wavelet(\d*)-([LH]{2,3})$")
_LOG = re.compile(r"^log-sigma-(\d{1,3})-(\d{1,3})-mm-3D$")
_PLAIN_FILTERS = {
    "square": "Square",
    "squareroot": "Square Root",
    "logarithm": "Logarithm",
    "exponential": "Exponential",
    "gradient": "Gradient",
    "lbp-2D": "LBP 2D",
    "lbp-3D-k": "LBP 3D Kurtosis",
}
_LBP_LEVEL = re.compile(r"^lbp-3D-m(\d)$")

_SCALE_FREE_SHAPE = {"Elongation", "Flatness", "Sphericity"}
_SPACING_FILTERS = ("log-sigma-", "gradient")


@cache  # a prediction's reasons ask for the same few names thousands of times
def display_name(feature: str) -> str:
    """The words for a PyRadiomics feature name: ``original_glszm_ZonePercentage`` is ``Zone Percentage``.

    Raises RadllmError for a name outside the canonical table.
    """
    image, family, name = split_name(feature)
    words = _SPELLED_OUT.get(name) or re.sub(r"(?<=[a-z])(?=[A-Z])", " ", name)
    if _OCCURRENCES[name] > 1 and family not in _PLAIN_FAMILIES:
        words += f" ({_MATRIX_TITLES.get(family, '3D')})"
    prefix = _image_words(image)
    return f"{prefix} {words}" if prefix else words


def is_canonical(feature: str) -> bool:
    """Whether a name is in the table and may reach a prompt."""
    try:
        split_name(feature)
    except RadllmError:
        return False
    return True


@cache
def split_name(feature: str) -> tuple[str, str, str]:
    """``(image type, family, feature)`` of a PyRadiomics feature name; RadllmError where it is not canonical."""
    parts = feature.split("_")
    if len(parts) == 3 and parts[2] in FAMILIES.get(parts[1], ()) and _image_words(parts[0]) is not None:
        return parts[0], parts[1], parts[2]
    raise RadllmError(
        f"'{feature[:80]}' is not a PyRadiomics feature name such as 'original_shape2D_Sphericity': "
        "use the column names that radllm extract writes."
    )


def depends_on_spacing(feature: str) -> bool:
    """Whether the value changes with the pixel spacing of an isotropic image (a length, an area, a filter in mm)."""
    image, family, name = split_name(feature)
    if image.startswith(_SPACING_FILTERS):
        return True
    if family in ("shape2D", "shape"):
        return name not in _SCALE_FREE_SHAPE
    return name == "TotalEnergy"


def _image_words(image: str) -> str | None:
    """Words for a PyRadiomics image type; empty for the original image, None for an unknown one."""
    if image == "original":
        return ""
    if image in _PLAIN_FILTERS:
        return _PLAIN_FILTERS[image]
    if found := _SUBBANDS.match(image):
        return f"Wavelet{' ' + found[1] if found[1] else ''} {found[2]}"
    if found := _LOG.match(image):
        return f"LoG {int(found[1])}.{found[2]} mm"
    if found := _LBP_LEVEL.match(image):
        return f"LBP 3D Level {found[1]}"
    return None
