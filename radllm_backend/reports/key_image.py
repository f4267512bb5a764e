"""The picture of a report: the lesion on its image, outlined."""

from __future__ import annotations

import io
from typing import TYPE_CHECKING, Any

import numpy as np
import SimpleITK as sitk
from numpy.typing import NDArray
from PIL import Image, ImageDraw, ImageFont
from scipy import ndimage

from radllm_backend.records import KeyImage

if TYPE_CHECKING:
    from radllm_backend.imaging.lesion import Lesion

SIDE = 480
"""Pixels of the longer side."""
OUTLINE = (255, 214, 10)
"""Yellow: no grey value comes near it, and most colour-blind readers see it."""

_MARGIN = 0.35  # around the lesion, as a share of its longer side
_COMPRESSION = 3  # a tenth larger than the smallest file, in a tenth of the time
_SCALE_BARS_MM = (0.1, 0.2, 0.5, 1, 2, 5, 10, 20, 50, 100)

_Slice = NDArray[Any]
_Mask = NDArray[np.bool_]


def key_image(lesion: Lesion) -> KeyImage:
    """A PNG of the lesion and its surroundings with the outline drawn on it, in the proportions of the spacing.

    Of a 3D lesion it shows the slice with the largest area; with a known spacing it has a scale bar.
    """
    image, mask = _largest_slice(lesion)
    width_mm, height_mm = lesion.image.GetSpacing()[:2]
    window = _around(mask, height_mm, width_mm)
    grey, inside = _windowed(image[window]), mask[window]
    extent = (inside.shape[1] * width_mm, inside.shape[0] * height_mm)
    pixels_per_mm = SIDE / max(extent)
    size = (max(1, round(extent[0] * pixels_per_mm)), max(1, round(extent[1] * pixels_per_mm)))
    picture = Image.fromarray(grey).resize(size, Image.Resampling.BICUBIC).convert("RGB")
    enlarged = Image.fromarray(inside.astype(np.uint8) * 255).resize(size, Image.Resampling.BICUBIC)
    picture = _outlined(picture, np.asarray(enlarged) > 127)
    if lesion.geometry.spacing_known:
        _draw_scale_bar(picture, pixels_per_mm)
    buffer = io.BytesIO()
    picture.save(buffer, format="PNG", compress_level=_COMPRESSION)
    return KeyImage(png=buffer.getvalue(), is_slice=lesion.image.GetDimension() == 3)


def _largest_slice(lesion: Lesion) -> tuple[_Slice, _Mask]:
    """Image and mask [rows, columns] of the slice where the lesion has the most pixels."""
    image, mask = sitk.GetArrayViewFromImage(lesion.image), sitk.GetArrayViewFromImage(lesion.mask)
    if mask.ndim == 2:
        return image, mask > 0
    largest = int((mask > 0).sum(axis=(1, 2)).argmax())
    return image[largest], mask[largest] > 0


def _around(mask: _Mask, height_mm: float, width_mm: float) -> tuple[slice, slice]:
    """Rows and columns of a square (in mm) around the lesion, cut off at the image's edge."""
    rows, columns = np.flatnonzero(mask.any(axis=1)), np.flatnonzero(mask.any(axis=0))
    side_mm = max((rows[-1] - rows[0] + 1) * height_mm, (columns[-1] - columns[0] + 1) * width_mm)
    half_mm = side_mm * (0.5 + _MARGIN)

    def span(found: NDArray[np.intp], pixel_mm: float, length: int) -> slice:
        middle, half = (found[0] + found[-1] + 1) / 2, half_mm / pixel_mm
        return slice(max(0, int(middle - half)), min(length, int(np.ceil(middle + half))))

    return span(rows, height_mm, mask.shape[0]), span(columns, width_mm, mask.shape[1])


def _windowed(image: _Slice) -> NDArray[np.uint8]:
    """Grey values 0 to 255 between the 1st and the 99th percentile; a flat image is mid-grey."""
    low, high = np.percentile(image, (1, 99))
    if low == high:
        return np.full(image.shape, 128, dtype=np.uint8)
    grey: NDArray[np.float64] = np.clip((image.astype(np.float64) - low) / (high - low), 0, 1) * 255
    return grey.astype(np.uint8)


def _outlined(picture: Image.Image, inside: _Mask) -> Image.Image:
    """The outline, two pixels wide as the page shows it, between dark lines that set it off from bright tissue."""

    def band(outwards: int, inwards: int) -> _Mask:
        # Beyond the picture the lesion goes on (border_value=1): no line where it is merely cut off.
        kept: _Mask = ndimage.binary_erosion(inside, iterations=inwards, border_value=1)
        grown: _Mask = ndimage.binary_dilation(inside, iterations=outwards)
        return grown & ~kept

    pixels = np.array(picture)
    pixels[band(2, 3)] //= 3
    pixels[band(1, 2)] = OUTLINE
    return Image.fromarray(pixels)


def _draw_scale_bar(picture: Image.Image, pixels_per_mm: float) -> None:
    """The longest round length that fits a third of the width, at the lower left."""
    fitting = [length for length in _SCALE_BARS_MM if length * pixels_per_mm <= picture.width / 3]
    if not fitting:
        return
    length = fitting[-1]
    draw, font, text = ImageDraw.Draw(picture), ImageFont.load_default(size=24), f"{length:g} mm"
    left, bottom = 18, picture.height - 18
    right = left + round(length * pixels_per_mm) - 1
    top, text_right = draw.textbbox((left, bottom - 10), text, font=font, anchor="lb")[1:3]
    draw.rectangle((left - 8, top - 6, max(right, text_right) + 8, bottom + 8), fill="black")
    draw.rectangle((left, bottom - 4, right, bottom), fill="white")
    draw.text((left, bottom - 10), text, fill="white", font=font, anchor="lb")
