"""PyRadiomics' own values, of the whole image and by its public way: what ours are compared with."""

from __future__ import annotations

import json

import numpy as np
import SimpleITK as sitk
from radiomics.featureextractor import RadiomicsFeatureExtractor

from radllm_backend.features.extraction_settings import Settings
from radllm_backend.imaging.lesion import Lesion

TEXTURES = ("firstorder", "glcm", "glrlm", "glszm", "gldm", "ngtdm")


def lesion_of(grey: np.ndarray, mask: np.ndarray, spacing: tuple[float, ...] | None = None) -> Lesion:
    images = [sitk.GetImageFromArray(grey), sitk.GetImageFromArray(mask.astype(np.uint8))]
    for image in images:
        image.SetSpacing(spacing or (1.0,) * mask.ndim)
    return Lesion.from_images(*images)


def some_settings(dimension: int, images: dict, intensity: str = "as-stored", **general) -> Settings:
    shape = "shape" if dimension == 3 else "shape2D"
    parameters = {"imageType": images, "featureClass": dict.fromkeys((shape, *TEXTURES)), "setting": general}
    return Settings.from_dict({"radllm": {"intensity": intensity}, **parameters})


def whole(lesion: Lesion, chosen: Settings) -> dict[str, float]:
    """PyRadiomics' own values, of all of the image."""
    voxels = sitk.GetArrayFromImage(lesion.image)
    image = sitk.Cast(lesion.image, sitk.sitkFloat64)
    if chosen.intensity == "min-max":
        image = (image - float(voxels.min())) / (float(voxels.max()) - float(voxels.min()))
    elif (np.rint(voxels) == voxels).all():
        image = sitk.Cast(lesion.image, sitk.sitkInt32)
    general = {**(chosen.parameters.get("setting") or {}), "additionalInfo": False}
    if lesion.image.GetDimension() == 2:
        general["force2D"] = False
    parameters = json.dumps({**chosen.parameters, "setting": general}, sort_keys=True)  # ours are in this order
    stock = RadiomicsFeatureExtractor(json.loads(parameters))
    return {name: float(np.real(value)) for name, value in stock.execute(image, lesion.mask).items()}
