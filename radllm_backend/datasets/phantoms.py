"""Ultrasound-like breast lesions made from a seed: for the demonstration and the tests. They hold no patient.

A phantom is painted in decibels, as a scanner sees it: layers of tissue, the lesion with what it does to the beam below
it, then blur and speckle, then log compression to grey. ``python -m radllm_backend.datasets.phantoms FOLDER`` writes
the sample lesions.
"""

from __future__ import annotations

import io
import sys
from dataclasses import dataclass
from pathlib import Path
from typing import Literal, NamedTuple

import numpy as np
from numpy.typing import NDArray
from PIL import Image, ImageDraw, ImageFont, PngImagePlugin
from scipy import ndimage

from radllm_backend.errors import RadllmError
from radllm_backend.files import write_atomically

Kind = Literal["oval", "spiculated"]
KINDS: tuple[Kind, ...] = ("oval", "spiculated")
SPACING_MM = 0.08
LABEL = "SYNTHETIC"

# Everything is float64: there the last-bit differences between processors never reach a grey value.
_Field = NDArray[np.float64]

_GREY_PER_DB = 4.3
_GREY_AT_0_DB = 92.0
_PER_DB = np.log(10) / 20
_BLUR_LEAVES = 0.235  # of the scatterers' amplitude: 1 / sqrt(4 pi 0.85 1.7)
_README = """\
# Sample lesions: SYNTHETIC

`oval.png` and `spiculated.png` are **synthetic**: made by a program to look like breast ultrasound. They hold no
patient, show no real tissue, and say nothing about how well any model works. `oval_mask.png` and `spiculated_mask.png`
are their lesions (255 inside, 0 outside). One pixel is {spacing} mm wide and high.

- *oval*: smooth, wider than tall, homogeneous, brighter tissue below it (posterior enhancement);
- *spiculated*: star-like, taller than wide, darker and heterogeneous, a shadow below it (posterior shadowing).

Each picture says SYNTHETIC below its lesion and in a PNG text chunk. This command made them (seed 0), and makes
the same pixels again:

    python -m radllm_backend.datasets.phantoms FOLDER
"""


@dataclass(frozen=True, eq=False)
class Phantom:
    """One synthetic lesion."""

    image: NDArray[np.uint8]
    """Grey values [rows, columns], LABEL burned in below the lesion."""
    mask: NDArray[np.uint8]
    """255 in the lesion, 0 elsewhere, on the image's grid."""
    kind: Kind
    spacing_mm: float = SPACING_MM
    """Width and height of a pixel."""


def make_phantom(kind: Kind, seed: int = 0, size: tuple[int, int] = (400, 320)) -> Phantom:
    """A lesion of this kind; the same kind, seed and size give the same pixels.

    Args:
        kind: ``oval`` (smooth, wider than tall) or ``spiculated`` (star-like, taller than wide).
        seed: varies place, size, contour, layers and texture.
        size: rows and columns, at least 160 each.

    Raises:
        RadllmError: unknown kind, or a size too small to hold a lesion.
    """
    if kind not in KINDS:
        raise RadllmError(f"There is no phantom '{kind}': ask for {' or '.join(KINDS)}.")
    if min(size) < 160:
        raise RadllmError(f"A phantom of {size[0]} x {size[1]} pixels cannot hold a lesion: use 160 x 160 or more.")
    rng = np.random.default_rng([seed, KINDS.index(kind)])
    scene = _tissue(rng, size)
    mask = _lesion_mask(rng, kind, size)
    paint = _with_oval if kind == "oval" else _with_spiculated
    scene = paint(rng, scene, mask.astype(np.float64))
    grey = _GREY_AT_0_DB + _GREY_PER_DB * _scanned(rng, scene)
    image = np.clip(np.rint(grey), 0, 255).astype(np.uint8)
    return Phantom(image=_labelled(image, mask), mask=mask.astype(np.uint8) * 255, kind=kind)


def write_phantoms(folder: Path) -> None:
    """Write the sample lesions (seed 0) with their masks and a README into a folder, made if missing.

    Raises:
        RadllmError: the folder cannot be written.
    """
    files = {"README.md": _README.format(spacing=SPACING_MM).encode()}
    for kind in KINDS:
        phantom = make_phantom(kind)
        files[f"{kind}.png"] = _png(phantom.image)
        files[f"{kind}_mask.png"] = _png(phantom.mask)
    try:
        folder.mkdir(parents=True, exist_ok=True)
    except OSError as error:
        raise RadllmError(f"The folder {folder.name} cannot be made: choose another for the sample lesions.") from error
    for name, content in files.items():
        write_atomically(folder / name, content)


# --- tissue ---------------------------------------------------------------------------------------------------------


class _Scene(NamedTuple):
    """What the beam meets, in dB [rows, columns]."""

    scatter: _Field
    """Level of the diffuse echo, which speckles."""
    mirror: _Field
    """How far smooth surfaces (skin, fascia, capsule) stand out above it: 0 where there is none."""


def _tissue(rng: np.random.Generator, size: tuple[int, int]) -> _Scene:
    """Skin, fat, gland and muscle, top to bottom, with the fibres that cross them."""
    rows, columns = size
    depth = np.arange(rows)[:, None]
    skin = rng.uniform(14, 22) + _wave(rng, columns, 0.8)
    gland = skin + rows * rng.uniform(0.08, 0.22) + _wave(rng, columns, rows * 0.02)
    muscle = rows * rng.uniform(0.74, 0.90) + _wave(rng, columns, rows * 0.018)
    levels = (rng.uniform(-3, 0), rng.uniform(-7, -4), rng.uniform(-2, 1), rng.uniform(-9, -6))
    echo = np.full(size, levels[0])
    for boundary, above, below in zip((skin, gland, muscle), levels, levels[1:], strict=False):
        echo += (below - above) * _step(depth - boundary, 4)
    lobules = np.clip(1.5 * _noise(rng, size, (8, 14)), -1.3, 1.3)
    echo += rng.uniform(1.0, 2.6) * lobules * _step(depth - gland, 15)
    fibres = _along(rng, gland, _noise(rng, size, (1.2, 22)))
    echo += rng.uniform(0.8, 2.0) * _along(rng, gland, np.clip(_noise(rng, size, (3, 34)), -2, 2))
    below_skin = _step(depth - skin, 5)
    mirror = 12 * below_skin * np.clip(fibres - rng.uniform(1.1, 1.9), 0, 1.6)
    for surface, strength, thickness in ((1.0, 12, 3.0), (skin, 11, 2.2), (muscle, 15, 2.6)):
        broken = np.clip(_wave(rng, columns, 0.5) + 0.8, 0, 1.4)
        near = np.floor(surface).astype(int) + np.arange(-3, 4)[:, None]
        profile = np.clip(1 - ((near - surface) / thickness) ** 2, 0, None)
        mirror[near.clip(0), np.arange(columns)] += strength * broken * profile
    return _Scene(echo, mirror)


def _along(rng: np.random.Generator, boundary: _Field, texture: _Field) -> _Field:
    """A texture bent to run along a boundary between layers, and tilted a little."""
    rows, columns = texture.shape
    bend = 0.6 * (boundary - boundary.mean()) + rng.uniform(-0.12, 0.12) * np.arange(columns)
    return np.take_along_axis(texture, (np.arange(rows)[:, None] - np.rint(bend).astype(int)) % rows, axis=0)


def _beam(rng: np.random.Generator, size: tuple[int, int]) -> _Field:
    """What the beam loses on its way (dB): with depth, and in columns where the probe touches badly."""
    rows, columns = size
    depth = np.linspace(0, 1, rows)[:, None]
    contact: _Field = rng.uniform(0.3, 1.5) * 5 * ndimage.gaussian_filter1d(rng.standard_normal(columns), 7)
    return -rng.uniform(3, 8) * depth**1.5 + contact * (0.3 + 0.7 * depth)


def _scanned(rng: np.random.Generator, scene: _Scene) -> _Field:
    """The scene as the scanner shows it (dB): blurred by the beam, finer along it than across it, and speckled.

    The envelope of the sum of random scatterers is Rayleigh distributed, Rice distributed where a smooth surface adds a
    steady echo; blurring its square stands for compounding.
    """
    amplitude = np.exp((scene.scatter + _beam(rng, scene.scatter.shape)) * _PER_DB)
    steady = _BLUR_LEAVES * amplitude * np.expm1(scene.mirror * _PER_DB)
    power = np.zeros(amplitude.shape)
    for surfaces in (steady, 0):  # in phase, in quadrature
        scatter = amplitude * rng.standard_normal(amplitude.shape)
        power += (ndimage.gaussian_filter(scatter, (0.85, 1.7), truncate=2.5) + surfaces) ** 2
    power = ndimage.gaussian_filter(power, (0.55, 1.1), truncate=1.5)
    shown: _Field = 10 * np.log10(power / (2 * _BLUR_LEAVES**2) + 1e-3)
    return shown


# --- lesion ---------------------------------------------------------------------------------------------------------


def _lesion_mask(rng: np.random.Generator, kind: Kind, size: tuple[int, int]) -> NDArray[np.bool_]:
    """The pixels inside a random contour of this kind: one connected piece, away from the border."""
    angles = np.linspace(-np.pi, np.pi, 721)
    contour = _oval_contour(rng, angles) if kind == "oval" else _spiculated_contour(rng, angles)
    x, y = contour * np.cos(angles), contour * np.sin(angles)
    # Stretched to the wanted width and height, so that no draw turns a tall lesion into a wide one.
    length, ratio = min(size) * rng.uniform(0.28, 0.48), rng.uniform(0.5, 0.8)
    width, height = (length, length * ratio) if kind == "oval" else (length * (ratio + 0.15), length)
    x, y = x * width / np.ptp(x), y * height / np.ptp(y)
    centre = (size[0] * rng.uniform(0.36, 0.50), size[1] * rng.uniform(0.38, 0.62))
    return _filled(x, y, centre, size)


def _oval_contour(rng: np.random.Generator, angles: _Field) -> _Field:
    """Radius per angle of a tilted ellipse, gently lobulated."""
    tilt = rng.uniform(-0.25, 0.25)
    flat = rng.uniform(0.5, 0.75)
    ellipse = flat / np.hypot(flat * np.cos(angles - tilt), np.sin(angles - tilt))
    return ellipse * (1 + _harmonics(rng, angles, (2, 3, 4), rng.uniform(0.005, 0.03)))


def _spiculated_contour(rng: np.random.Generator, angles: _Field) -> _Field:
    """Radius per angle of an irregular body with spicules of differing length and width."""
    body = 1 + _harmonics(rng, angles, (2, 3, 4, 5, 7, 9), rng.uniform(0.05, 0.09))
    count = int(rng.integers(9, 18))
    places = (np.arange(count) + rng.uniform(-0.35, 0.35, count)) * 2 * np.pi / count
    away = np.abs(np.angle(np.exp(1j * (angles[:, None] - places))))
    spicules = rng.uniform(0.15, 0.8, count) * np.exp(-away / rng.uniform(0.06, 0.12, count))
    contour: _Field = body + spicules.sum(axis=1)
    return contour


def _with_oval(rng: np.random.Generator, tissue: _Scene, inside: _Field) -> _Scene:
    """The tissue with a homogeneous lesion, a thin capsule bright where it faces the beam, and enhancement below."""
    core = tissue.scatter.mean() - rng.uniform(5, 11) + rng.uniform(0.3, 1.0) * _noise(rng, inside.shape, (4, 6))
    soft = ndimage.gaussian_filter(inside, 1.0, truncate=2)
    echo = tissue.scatter + soft * (core - tissue.scatter)
    path = _path(inside)
    capsule = np.abs(np.gradient(soft, axis=0))
    grazed = np.abs(np.gradient(path[-1])) * (path > 0.02)
    echo += rng.uniform(3, 7) * path * (1 - soft) - rng.uniform(1, 4) * grazed / grazed.max()
    return _Scene(echo, tissue.mirror * (1 - soft) + rng.uniform(7, 15) * capsule / capsule.max())


def _with_spiculated(rng: np.random.Generator, tissue: _Scene, inside: _Field) -> _Scene:
    """The tissue with a dark heterogeneous lesion, an ill-defined bright halo, and a shadow below."""
    grain = _noise(rng, inside.shape, (4, 6))
    calcifications = np.zeros(inside.size)
    calcifications[rng.choice(np.flatnonzero(inside), rng.integers(0, 10))] = rng.uniform(15, 25)
    soft = ndimage.gaussian_filter(inside, 1.4, truncate=2)
    core = tissue.scatter.mean() - rng.uniform(5, 9) + rng.uniform(1.5, 3) * grain
    echo = tissue.scatter + soft * (core - tissue.scatter)
    halo = np.clip(grain + 2, 0, 4) * ndimage.uniform_filter(soft, 17)
    echo += rng.uniform(2, 5) * halo * (1 - soft) - rng.uniform(7, 13) * _path(inside)
    return _Scene(echo, tissue.mirror * (1 - soft) + calcifications.reshape(inside.shape))


def _path(inside: _Field) -> _Field:
    """How much of the lesion the beam has crossed down to each pixel, blurred across: 1 below its thickest part."""
    path = ndimage.uniform_filter1d(inside.cumsum(axis=0), 11, axis=1)
    share: _Field = path / path.max()
    return share


# --- building blocks ------------------------------------------------------------------------------------------------


def _noise(rng: np.random.Generator, size: tuple[int, ...], sigmas: tuple[float, float]) -> _Field:
    """A smooth random field [rows, columns] of mean 0 and deviation 1, correlated over these lengths (pixels)."""
    steps = [max(1, int(sigma / 2)) for sigma in sigmas]
    field = rng.standard_normal([-(-length // step) + 1 for length, step in zip(size, steps, strict=True)])
    widths = [sigma / step for sigma, step in zip(sigmas, steps, strict=True)]
    field = ndimage.gaussian_filter(field, widths, truncate=2.5, mode="wrap")
    field = (field - field.mean()) / field.std()
    return _finer(_finer(field, steps[1], size[1], axis=1), steps[0], size[0], axis=0)


def _finer(field: _Field, step: int, length: int, axis: int) -> _Field:
    """Linear interpolation along one axis, `step` times finer, to this length."""
    below, part = np.divmod(np.arange(length), step)
    near = field.take(below, axis)
    if step == 1:
        return near
    return near + np.expand_dims(part / step, 1 - axis) * (field.take(below + 1, axis) - near)


def _wave(rng: np.random.Generator, length: int, amplitude: float) -> _Field:
    """A smooth random line [length]: a few slow sines."""
    x = np.arange(length) / length
    turns, phases = rng.uniform(0.3, 2.2, 4), rng.uniform(0, 2 * np.pi, 4)
    line: _Field = amplitude * np.sin(2 * np.pi * turns * x[:, None] + phases).sum(axis=1) / np.sqrt(2)
    return line


def _harmonics(rng: np.random.Generator, angles: _Field, orders: tuple[int, ...], amplitude: float) -> _Field:
    """A random periodic function of the angle, weaker in the higher orders."""
    phases = rng.uniform(0, 2 * np.pi, len(orders))
    waves = (np.cos(n * angles + phase) * (2 / n) ** 0.5 for n, phase in zip(orders, phases, strict=True))
    whole: _Field = amplitude * sum(waves)
    return whole


def _step(distance: _Field, width: float) -> _Field:
    """0 above a boundary, 1 below it, rising linearly over `width` pixels."""
    return np.clip(0.5 + distance / width, 0, 1)


def _filled(x: _Field, y: _Field, centre: tuple[float, float], size: tuple[int, int]) -> NDArray[np.bool_]:
    """The pixels inside a star-shaped contour around a centre (row, column): one connected piece."""
    row, column = centre
    rows = np.arange(int(row + y.min()), int(row + y.max()) + 2)
    columns = np.arange(int(column + x.min()), int(column + x.max()) + 2)
    down, across = rows[:, None] - row, columns[None, :] - column
    reach = np.interp(np.arctan2(down, across), np.arctan2(y, x), np.hypot(x, y), period=2 * np.pi)
    # On the pixel grid the tip of a thin spicule may break off: the largest piece is the lesion.
    labels, _ = ndimage.label(np.hypot(down, across) < reach)
    mask = np.zeros(size, dtype=np.bool_)
    mask[np.ix_(rows, columns)] = labels == np.bincount(labels.ravel())[1:].argmax() + 1
    return mask


# --- files ----------------------------------------------------------------------------------------------------------


def _labelled(image: NDArray[np.uint8], mask: NDArray[np.bool_]) -> NDArray[np.uint8]:
    """The image with LABEL close below the lesion, so that a picture cropped to the lesion shows it too.

    Pillow's bitmap font gives the same pixels everywhere.
    """
    rows, columns = np.nonzero(mask)
    place = (min(int(columns.min()), image.shape[1] - 60), min(int(rows.max()) + 4, image.shape[0] - 15))
    picture = Image.fromarray(image)
    ImageDraw.Draw(picture).text(place, LABEL, fill=200, font=ImageFont.load_default_imagefont())
    return np.asarray(picture)


def _png(pixels: NDArray[np.uint8]) -> bytes:
    note = PngImagePlugin.PngInfo()
    note.add_text("Description", f"{LABEL} breast ultrasound phantom of RadiomicsLLM: no patient.")
    buffer = io.BytesIO()
    Image.fromarray(pixels).save(buffer, format="PNG", optimize=True, pnginfo=note)
    return buffer.getvalue()


if __name__ == "__main__":
    if len(sys.argv) != 2:
        sys.exit("usage: python -m radllm_backend.datasets.phantoms FOLDER")
    write_phantoms(Path(sys.argv[1]))
