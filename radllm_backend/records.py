"""What travels between the rooms and over a socket: the features of a lesion, where they come from, and figures."""

from __future__ import annotations

import csv
import hashlib
import io
from collections.abc import Callable
from typing import Annotated

from pydantic import BaseModel, ConfigDict, Field

MODEL_NAME = "[A-Za-z0-9][A-Za-z0-9._-]{0,63}"
ModelName = Annotated[str, Field(pattern=f"^{MODEL_NAME}$")]
"""The name of the folder that a model was written to."""
SHA256 = Annotated[str, Field(pattern=r"^[0-9a-f]{64}$")]
MODALITIES = ("MG", "US", "CT", "MR")
"""The DICOM modality codes that a model can be trained for."""
Progress = Callable[[str, float], None]
"""Called with what is happening now, in words, and with how much of the whole is done (0..1)."""


def say_nothing(_what: str, _done: float) -> None:
    """The progress of what nobody waits for."""


class Record(BaseModel):
    """Base of everything that crosses a boundary: immutable, closed to unknown keys, finite numbers only."""

    model_config = ConfigDict(frozen=True, extra="forbid", allow_inf_nan=False)


class Estimate(Record):
    """A figure with its 95% interval."""

    value: float
    low: float
    high: float


class CalibrationBin(Record):
    """Lesions with similar probabilities."""

    predicted: float
    """Their mean probability."""
    observed: float
    """The share of them that is malignant."""
    lesions: int


class Geometry(Record):
    """Where and how large a lesion is on its image grid; axes in x, y(, z) order."""

    size: tuple[int, ...]
    """Voxels of the whole image along each axis (2 or 3 of them)."""
    spacing: tuple[float, ...]
    """Voxel size in mm; 1.0 where the image has none (then ``spacing_known`` is false)."""
    spacing_known: bool
    bounding_box: tuple[int, ...]
    """Lesion box: first index along each axis, then its extent along each axis."""
    voxels: int
    """Number of voxels (pixels in 2D) in the lesion."""
    touches_border: bool
    """Whether the lesion reaches the edge of the image (in 3D: of a slice, in plane)."""


class Extraction(Record):
    """Provenance of one extraction, sufficient to repeat it."""

    preset: str
    """Name of the preset, or ``custom`` for the user's own PyRadiomics file."""
    settings_sha256: SHA256
    versions: dict[str, str]
    """Version of each package that has a part in the values; of PyRadiomics with ``+execute`` where its own way, which
    takes longer, had to measure."""
    modality: str | None
    geometry: Geometry
    image_sha256: SHA256
    mask_sha256: SHA256


def lesion_hash(extraction: Extraction) -> str:
    """A short content hash of image and mask, by which a training lesion is recognised; says nothing about either."""
    return hashlib.sha256((extraction.image_sha256 + extraction.mask_sha256).encode()).hexdigest()[:16]


class KeyImage(Record):
    """The picture of a report: the lesion, outlined, and the image around it."""

    model_config = ConfigDict(ser_json_bytes="base64", val_json_bytes="base64")

    png: bytes
    """A file's content; some 100 kB, whatever the image's size."""
    is_slice: bool
    """Whether it shows one slice of a volume."""


class Features(Record):
    """Feature values of one lesion in PyRadiomics' order, by PyRadiomics' names (``original_shape2D_Sphericity``)."""

    # A value that PyRadiomics cannot compute (a texture of a flat region, say) is None, never NaN.
    values: dict[str, float | None]
    extraction: Extraction | None = None
    """None for values that came without it, from somebody's own table."""
    descriptors: dict[str, str] = {}
    """The radiologist's categorical findings by name, canonical values (`descriptors.canonical`); empty: not given."""

    def to_csv(self) -> str:
        """One row a feature: ``feature,value``; an undefined value is empty."""
        buffer = io.StringIO()
        writer = csv.writer(buffer, lineterminator="\n")
        writer.writerow(["feature", "value"])
        writer.writerows([name, "" if value is None else repr(value)] for name, value in self.values.items())
        writer.writerows(self.descriptors.items())
        return buffer.getvalue()
