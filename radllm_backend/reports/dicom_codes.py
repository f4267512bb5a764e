"""The coded names that a DICOM report gives to PyRadiomics' features, and the units of their values.

A feature has a public code only where PyRadiomics' definition is the code's: those of the image biomarker
standardisation initiative (IBSI, Zwanenburg et al., Radiology 295:328, 2020, and its reference manual), with the
meanings of DICOM PS3.16 CID 218 and CID 7477 where it lists them, and SNOMED CT's lengths and areas for a lesion on one
picture. Without a public code are, on purpose: Kurtosis (IBSI's is less by 3), Energy and RootMeanSquared (settings may
shift the grey values, IBSI does not), the shape of a 2D lesion where IBSI knows that of a volume only, and whatever was
measured on a filtered image.

These have a code of this project's own, in the coding scheme 99RADLLM: PyRadiomics' name (``original_glcm_MCC``), or,
since a code has at most 16 characters, the first 12 hexadecimal digits of the name's SHA-256; the meaning is the name.
"""

from __future__ import annotations

import hashlib
from typing import NamedTuple

from radllm_backend.features.names import split_name


class CodedName(NamedTuple):
    """As pydicom's ``Code``, which brings dictionaries that take 0.1 s to import: the panel needs none of them."""

    value: str
    scheme_designator: str
    meaning: str


PRIVATE_SCHEME = "99RADLLM"
PRIVATE_SCHEME_NAME = "RadiomicsLLM: names, or the first 12 hexadecimal digits of their SHA-256"
_LONGEST_CODE = 16  # DICOM's SH
_LONGEST_MEANING = 64  # DICOM's LO

_SNOMED = {
    "MajorAxisLength": CodedName("131187009", "SCT", "Major Axis"),
    "MeshSurface": CodedName("42798000", "SCT", "Area"),
    "MinorAxisLength": CodedName("131188004", "SCT", "Minor Axis"),
    "Perimeter": CodedName("131191004", "SCT", "Perimeter"),
}
"""Of the 2D shape."""

IBSI: dict[str, dict[str, tuple[str, str]]] = {
    family: {
        name: (code, meaning) for name, code, meaning in (line.split(maxsplit=2) for line in table.strip().splitlines())
    }
    for family, table in {
        "shape": """
            Elongation Q3CK Elongation
            Flatness N17B Flatness
            LeastAxisLength 7J51 Least Axis in 3D Length
            MajorAxisLength TDIC Major Axis in 3D Length
            Maximum3DDiameter L0JK Maximum 3D Diameter of a Mesh
            MeshVolume RNU0 Volume of Mesh
            MinorAxisLength P9VJ Minor Axis in 3D Length
            Sphericity QCFX Sphericity
            SurfaceArea C0JK Surface Area of Mesh
            SurfaceVolumeRatio 2PR5 Surface to Volume Ratio
            VoxelVolume YEKZ Volume from Voxel Summation""",
        "firstorder": """
            10Percentile QG58 10th percentile
            90Percentile 8DWT 90th percentile
            Entropy TLU2 Intensity Histogram Entropy
            InterquartileRange SALO Interquartile range
            Maximum 84IY Maximum grey level
            MeanAbsoluteDeviation 4FUA Mean absolute deviation
            Mean Q4LE Mean
            Median Y12H Median
            Minimum 1GSF Minimum grey level
            Range 2OJQ Range
            RobustMeanAbsoluteDeviation 1128 Robust mean absolute deviation
            Skewness KE2A Skewness
            Uniformity BJ5W Intensity Histogram Uniformity
            Variance ECT3 Variance""",
        "glcm": """
            Autocorrelation QWB0 Autocorrelation of GLCM
            ClusterProminence AE86 Cluster Prominence of GLCM
            ClusterShade 7NFM Cluster Shade of GLCM
            ClusterTendency DG8W Cluster Tendency of GLCM
            Contrast ACUI Contrast of GLCM
            Correlation NI2N Correlation of GLCM
            DifferenceAverage TF7R Difference Average of GLCM
            DifferenceEntropy NTRS Difference Entropy of GLCM
            DifferenceVariance D3YU Difference Variance of GLCM
            Id IB1Z Inverse Difference of GLCM
            Idm WF0Z Inverse Difference Moment of GLCM
            Idmn 1QCO Normalized Inverse Difference Moment of GLCM
            Idn NDRX Normalized Inverse Difference of GLCM
            Imc1 R8DG First Measure of Information Correlation of GLCM
            Imc2 JN9H Second Measure of Information Correlation of GLCM
            InverseVariance E8JP Inverse Variance of GLCM
            JointAverage 60VM Joint Average of GLCM
            JointEnergy 8ZQL Angular Second Moment of GLCM
            JointEntropy TU9B Joint Entropy of GLCM
            MaximumProbability GYBY Joint Maximum of GLCM
            SumAverage ZGXS Sum Average of GLCM
            SumEntropy P6QZ Sum Entropy of GLCM
            SumSquares UR99 Joint Variance of GLCM""",
        "gldm": """
            DependenceEntropy FCBV Dependence count entropy
            DependenceNonUniformity Z87G Dependence count non-uniformity
            DependenceNonUniformityNormalized OKJI Dependence count non-uniformity normalized
            DependenceVariance DNX2 Dependence count variance
            GrayLevelNonUniformity FP8K Grey level non-uniformity of NGLDM
            GrayLevelVariance 1PFV Grey level variance of NGLDM
            HighGrayLevelEmphasis OAE7 High grey level count emphasis
            LargeDependenceEmphasis IMOQ High dependence emphasis
            LargeDependenceHighGrayLevelEmphasis 9QMG High dependence high grey level emphasis
            LargeDependenceLowGrayLevelEmphasis NBZI High dependence low grey level emphasis
            LowGrayLevelEmphasis TL9H Low grey level count emphasis
            SmallDependenceEmphasis SODN Low dependence emphasis
            SmallDependenceHighGrayLevelEmphasis JA6D Low dependence high grey level emphasis
            SmallDependenceLowGrayLevelEmphasis EQ3F Low dependence low grey level emphasis""",
        "glrlm": """
            GrayLevelNonUniformity R5YN Gray Level Nonuniformity in Runs
            GrayLevelNonUniformityNormalized OVBL Normalized Gray Level Nonuniformity in Runs
            GrayLevelVariance 8CE5 Gray Level Variance in Runs
            HighGrayLevelRunEmphasis G3QZ High Gray Level Run Emphasis
            LongRunEmphasis W4KF Long Runs Emphasis
            LongRunHighGrayLevelEmphasis 3KUM Long Run High Gray Level Emphasis
            LongRunLowGrayLevelEmphasis IVPO Long Run Low Gray Level Emphasis
            LowGrayLevelRunEmphasis V3SW Low Gray Level Run Emphasis
            RunEntropy HJ9O Run Entropy
            RunLengthNonUniformity W92Y Run Length Nonuniformity
            RunLengthNonUniformityNormalized IC23 Normalized Run Length Nonuniformity
            RunPercentage 9ZK5 Run Percentage
            RunVariance SXLW Run Length Variance
            ShortRunEmphasis 22OV Short Runs Emphasis
            ShortRunHighGrayLevelEmphasis GD3A Short Run High Gray Level Emphasis
            ShortRunLowGrayLevelEmphasis HTZT Short Run Low Gray Level Emphasis""",
        "glszm": """
            GrayLevelNonUniformity JNSA Gray Level Nonuniformity of Size Zone Counts
            GrayLevelNonUniformityNormalized Y1RO Normalized Gray Level Nonuniformity of Size Zone Counts
            GrayLevelVariance BYLV Gray Level Variance in Size Zones
            HighGrayLevelZoneEmphasis 5GN9 High Gray Level Zone Emphasis
            LargeAreaEmphasis 48P8 Large Zone Emphasis
            LargeAreaHighGrayLevelEmphasis J17V Large Zone High Gray Level Emphasis
            LargeAreaLowGrayLevelEmphasis YH51 Large Zone Low Gray Level Emphasis
            LowGrayLevelZoneEmphasis XMSY Low Gray Level Zone Emphasis
            SizeZoneNonUniformity 4JP3 Zone Size Nonuniformity
            SizeZoneNonUniformityNormalized VB3A Normalized Zone Size Nonuniformity
            SmallAreaEmphasis 5QRC Small Zone Emphasis
            SmallAreaHighGrayLevelEmphasis HW1V Small Zone High Gray Level Emphasis
            SmallAreaLowGrayLevelEmphasis 5RAI Small Zone Low Gray Level Emphasis
            ZoneEntropy GU8N Zone Size Entropy
            ZonePercentage P30P Size Zone Percentage
            ZoneVariance 3NSA Zone Size Variance""",
        "ngtdm": """
            Busyness NQ30 Busyness of NGTDM
            Coarseness QCDE Coarseness of NGTDM
            Complexity HDEZ Complexity of NGTDM
            Contrast 65HE Contrast of NGTDM
            Strength 1X9X Strength of NGTDM""",
    }.items()
}
"""By PyRadiomics' family and name: IBSI's code and its meaning."""

NO_UNITS = CodedName("1", "UCUM", "no units")
PERCENT = CodedName("%", "UCUM", "Percent")
_PIXELS = CodedName("{pixels}", "UCUM", "pixels")
_PER_MM = CodedName("/mm", "UCUM", "per millimeter")
_MM, _MM2, _MM3 = (
    CodedName("mm", "UCUM", "millimeter"),
    CodedName("mm2", "UCUM", "square millimeter"),
    CodedName("mm3", "UCUM", "cubic millimeter"),
)
_AREAS = ("MeshSurface", "PixelSurface", "SurfaceArea")
_VOLUMES = ("MeshVolume", "VoxelVolume")
_RATIOS = ("PerimeterSurfaceRatio", "SurfaceVolumeRatio")
_LENGTH_WORDS = ("Length", "Diameter", "Perimeter")


def feature_code(feature: str) -> CodedName:
    """The coded name of a PyRadiomics feature: public where the definition is the same, else this project's own.

    Raises RadllmError for a name outside the canonical table.
    """
    image, family, name = split_name(feature)
    if image != "original":
        return private_code(feature)
    if family == "shape2D":
        return _SNOMED.get(name) or private_code(feature)
    if name not in IBSI[family]:
        return private_code(feature)
    code, meaning = IBSI[family][name]
    return CodedName(code, "IBSI", meaning)


def private_code(name: str, meaning: str | None = None) -> CodedName:
    """A code of this project's own; ``meaning`` is what people read, the name where it is not given."""
    digest = hashlib.sha256(name.encode()).hexdigest()[:12]
    words = meaning or name
    shortened = words if len(words) <= _LONGEST_MEANING else words[: _LONGEST_MEANING - 3] + "..."
    return CodedName(name if len(name) <= _LONGEST_CODE else digest, PRIVATE_SCHEME, shortened)


def unit_of(feature: str, spacing_known: bool) -> CodedName:
    """The unit of a feature's value; of a picture without a pixel size, lengths and areas are in pixels.

    Grey values count as numbers without a unit: a model may read them normalised or of a filtered image.
    """
    _, family, name = split_name(feature)
    if not family.startswith("shape"):
        return NO_UNITS
    if name in _RATIOS:
        return _PER_MM if spacing_known else NO_UNITS
    if name in _AREAS:
        return _MM2 if spacing_known else _PIXELS
    if name in _VOLUMES:
        return _MM3 if spacing_known else _PIXELS
    if any(word in name for word in _LENGTH_WORDS):
        return _MM if spacing_known else _PIXELS
    return NO_UNITS
