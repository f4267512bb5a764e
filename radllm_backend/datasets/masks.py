"""Lesion masks that must be computed: from a box, grown inside a box, from a contour, or from a mask of another size.

Each is a PNG file (lesion white) that says in its text chunks how it was made; a mask made the same way before is kept.
"""

from __future__ import annotations

import hashlib
import io
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Literal, NamedTuple

import numpy as np
import SimpleITK as sitk
from numpy.typing import NDArray
from PIL import Image, ImageDraw, PngImagePlugin

from radllm_backend.datasets.collecting import UnusableLesionError
from radllm_backend.errors import RadllmError
from radllm_backend.files import write_atomically
from radllm_backend.imaging.image_files import read_image

DrawnKind = Literal["box", "grown", "contour", "scaled"]
"""How a mask came about."""

_GROWING = "grown 1"  # another number makes every mask of an older rule anew
_SMALLEST_GROWN = 8  # pixels along each side of the box: below, there is nothing to smooth and to split
_SMOOTHING = 0.02  # of the box's shorter side, as the Gaussian's sigma
_LEAST_SHARE = 0.1  # of the box, below which what was grown is noise or a vessel rather than the lesion


class Size(NamedTuple):
    """An image's size in pixels."""

    rows: int
    columns: int


class Box(NamedTuple):
    """Pixels from `left` and `top` up to, without, `right` and `bottom`."""

    left: int
    top: int
    right: int
    bottom: int


def clipped_box(corners: Sequence[float], size: Size) -> Box:
    """The whole pixels of a box that lie in the image.

    Args:
        corners: left, top, right and bottom edge in pixels, as numbers with a fraction; they may leave the image.
        size: the image's.

    Raises:
        UnusableLesionError: fewer than two rows or columns of it lie in the image.
    """
    limits = (size.columns, size.rows) * 2
    box = Box(*(round(min(max(edge, 0.0), limit)) for edge, limit in zip(corners, limits, strict=True)))
    if box.right - box.left < 2 or box.bottom - box.top < 2:
        raise UnusableLesionError("its box lies outside the image, or is thinner than two pixels.")
    return box


def write_box(path: Path, size: Size, box: Box) -> DrawnKind:
    """Write a mask of all pixels of a box; RadllmError where it cannot be written."""

    def drawn() -> tuple[Image.Image, DrawnKind]:
        return _box_mask(size, box), "box"

    return _written_once(path, f"box {_numbers(box)} of {_numbers(size)}", drawn)


def write_grown(path: Path, image: Path, size: Size, box: Box) -> DrawnKind:
    """Write a mask of the bright lesion inside a box, or of the box itself where none stands out.

    The part of the image in the box is smoothed (recursive Gaussian, sigma 2% of the box's shorter side, at least one
    pixel) and split in two by Otsu's threshold (Otsu, IEEE Trans Syst Man Cybern 9 (1979) 62-66); of the connected
    bright pieces, the one with the most pixels in the middle half of the box is the lesion, its holes filled. All
    filters are SimpleITK's. Where the lesion covers less than a tenth of the box, or a side of the box has fewer than
    eight pixels, the box is the mask.

    Args:
        path: PNG file for the mask.
        image: the mammogram; not read where the mask is there already.
        size: the image's.
        box: from `clipped_box`.

    Raises:
        UnusableLesionError: the image cannot be read, or has another size.
        RadllmError: the mask cannot be written.
    """

    def drawn() -> tuple[Image.Image, DrawnKind]:
        inside = _grown(_part(image, size, box))
        if inside is None:
            return _box_mask(size, box), "box"
        mask = _empty(size)
        mask.paste(Image.fromarray(inside), (box.left, box.top))
        return mask, "grown"

    return _written_once(path, f"{_GROWING} in box {_numbers(box)} of {_numbers(size)}", drawn)


def write_contour(path: Path, size: Size, points: Sequence[tuple[float, float]]) -> DrawnKind:
    """Write a mask of the pixels inside a closed contour or on it, as far as they lie in the image.

    Args:
        path: PNG file for the mask.
        size: the image's.
        points: x and y in pixels; whole numbers are pixel centres.

    Raises:
        UnusableLesionError: what lies in the image is less than two rows or columns of pixels.
        RadllmError: the mask cannot be written.
    """

    def drawn() -> tuple[Image.Image, DrawnKind]:
        mask = _empty(size)
        ImageDraw.Draw(mask).polygon(list(points), fill=1)
        return mask, "contour"

    shape = hashlib.sha256(repr(list(points)).encode()).hexdigest()
    return _written_once(path, f"contour with SHA-256 {shape} in {_numbers(size)}", drawn)


def write_scaled(path: Path, mask: NDArray[np.bool_], size: Size, source: str) -> DrawnKind:
    """Write a mask that shows the image's field of view in another size, in the image's (nearest neighbour).

    Args:
        path: PNG file for the mask.
        mask: rows × columns, of any size.
        size: the image's.
        source: what the mask was read from, to know it again.

    Raises:
        UnusableLesionError: what is left are less than two rows or columns of pixels.
        RadllmError: the mask cannot be written.
    """

    def drawn() -> tuple[Image.Image, DrawnKind]:
        return Image.fromarray(mask).resize((size.columns, size.rows), Image.Resampling.NEAREST), "scaled"

    return _written_once(path, f"{source} of {_numbers(mask.shape)} as {_numbers(size)}", drawn)


def _written_once(path: Path, recipe: str, drawn: Callable[[], tuple[Image.Image, DrawnKind]]) -> DrawnKind:
    """Write what `drawn` returns, unless the file holds a mask of this recipe already; return the mask's kind."""
    if kept := _kind_of(path, recipe):
        return kept
    mask, kind = drawn()
    left, top, right, bottom = mask.getbbox() or (0, 0, 0, 0)
    if right - left < 2 or bottom - top < 2:
        raise UnusableLesionError("what lies of it in the image is thinner than two pixels.")
    about = PngImagePlugin.PngInfo()
    about.add_text("Recipe", recipe)
    about.add_text("Kind", kind)
    buffer = io.BytesIO()
    mask.save(buffer, format="PNG", pnginfo=about)
    _make_folder(path.parent)
    write_atomically(path, buffer.getvalue())
    return kind


def _make_folder(masks: Path) -> None:
    """With the first mask: where no lesion can be used, nothing is written."""
    try:
        masks.mkdir(parents=True, exist_ok=True)
    except OSError as error:
        raise RadllmError(f"The folder {masks.name} cannot be made: choose another for the masks.") from error


def _kind_of(path: Path, recipe: str) -> DrawnKind | None:
    """How the mask in a file came about, if it is one of this recipe."""
    try:
        with Image.open(path, formats=["PNG"]) as picture:
            if picture.info.get("Recipe") == recipe:
                kind: DrawnKind = picture.info["Kind"]
                return kind
    except (OSError, KeyError, SyntaxError, ValueError):
        pass  # no mask yet, or a file that is none: it is written anew
    return None


def _empty(size: Size) -> Image.Image:
    return Image.new("1", (size.columns, size.rows))


def _box_mask(size: Size, box: Box) -> Image.Image:
    mask = _empty(size)
    mask.paste(1, (box.left, box.top, box.right, box.bottom))
    return mask


def _part(path: Path, size: Size, box: Box) -> NDArray[np.float32]:
    try:
        pixels = sitk.GetArrayFromImage(read_image(path).pixels).squeeze()
    except RadllmError as error:
        raise UnusableLesionError(str(error)) from error
    if pixels.shape != size:
        raise UnusableLesionError(f"{path.name} is {_numbers(pixels.shape)}, not {_numbers(size)} as its header says.")
    return pixels[box.top : box.bottom, box.left : box.right].astype(np.float32)


def _grown(part: NDArray[np.float32]) -> NDArray[np.bool_] | None:
    """The bright lesion in the middle, or None where there is none to speak of."""
    if min(part.shape) < _SMALLEST_GROWN:
        return None
    smooth = sitk.SmoothingRecursiveGaussian(sitk.GetImageFromArray(part), max(1.0, _SMOOTHING * min(part.shape)))
    pieces = sitk.ConnectedComponent(sitk.OtsuThreshold(smooth, 0, 1))
    rows, columns = (slice(length // 4, length - length // 4) for length in part.shape)
    in_the_middle = np.bincount(sitk.GetArrayViewFromImage(pieces)[rows, columns].ravel())[1:]
    if not in_the_middle.any():
        return None
    lesion = sitk.BinaryFillhole(pieces == int(in_the_middle.argmax()) + 1)
    inside = sitk.GetArrayFromImage(lesion).astype(bool)
    return inside if inside.mean() >= _LEAST_SHARE else None


def _numbers(numbers: Sequence[int]) -> str:
    return " x ".join(map(str, numbers))
