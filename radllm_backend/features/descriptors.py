"""The radiologist's categorical findings: closed vocabularies in the words of the BI-RADS lexicon.

Nothing outside these tables can be said of a lesion in a prompt. A term keeps the edition its reader used: the third
edition's 'ill defined' is not rewritten as the fifth's 'indistinct', although they mean much the same.
"""

from __future__ import annotations

import re
from collections.abc import Sequence
from dataclasses import dataclass, field
from functools import cached_property
from typing import TYPE_CHECKING

from radllm_backend.errors import RadllmError

if TYPE_CHECKING:
    import numpy as np
    from numpy.typing import NDArray

PREFIX = "descriptor_"
"""What a descriptor's column in a table begins with: ``descriptor_mass_shape``."""

_JOINERS = re.compile(r"[\s_&-]+")
_NOT_GIVEN = {"", "n/a", "not available", "not applicable"}
_NONE = "none"


@dataclass(frozen=True)
class Vocabulary:
    """The terms that one descriptor can have."""

    title: str
    """Its name in a prompt or a report."""
    terms: tuple[str, ...]
    """Canonical terms, in the order in which a combined value names them."""
    alternates: dict[str, str] = field(default_factory=dict)
    """Other spellings and codes, each with the term it stands for."""
    several: bool = True
    """Whether a lesion can have more than one of them."""

    def find(self, words: str) -> tuple[str, ...]:
        """The terms in lower-case words with single spaces; empty where anything else is among them."""
        if not self._whole.fullmatch(words):
            return ()
        found = {self.alternates.get(spelling, spelling) for spelling in self._one.findall(words)}
        if len(found) > 1 and (not self.several or _NONE in found):
            return ()
        return tuple(term for term in self.terms if term in found)

    @cached_property
    def _spellings(self) -> str:
        longest_first = sorted((*self.terms, *self.alternates), key=len, reverse=True)
        return "|".join(map(re.escape, longest_first))

    @cached_property
    def _one(self) -> re.Pattern[str]:
        return re.compile(rf"\b(?:{self._spellings})\b")

    @cached_property
    def _whole(self) -> re.Pattern[str]:
        return re.compile(rf"(?:{self._spellings})(?: (?:and )?(?:{self._spellings}))*")


_DENSITIES = (
    "almost entirely fatty",
    "scattered areas of fibroglandular density",
    "heterogeneously dense",
    "extremely dense",
)
_ABSENT_OR_PRESENT = {"no": "absent", "yes": "present"}
_TISSUES = {
    f"{texture}: {tissue}": f"{texture} {tissue}"
    for texture, tissue in (
        ("homogeneous", "fat"),
        ("homogeneous", "fibroglandular"),
        ("heterogeneous", "predominantly fat"),
        ("heterogeneous", "predominantly fibroglandular"),
    )
}
"""As BrEaST has it, the lexicon's background echotexture: how ultrasound sees what a mammogram calls density."""

VOCABULARIES: dict[str, Vocabulary] = {
    "lesion_type": Vocabulary("Lesion Type", ("mass", "calcification")),
    "mass_shape": Vocabulary(
        "Mass Shape",
        (
            "round",
            "oval",
            "lobulated",
            "irregular",
            "architectural distortion",
            "lymph node",
            "asymmetric breast tissue",
            "focal asymmetric density",
        ),
    ),
    "mass_margins": Vocabulary(
        "Mass Margins",
        (
            "circumscribed",
            "not circumscribed",
            "obscured",
            "microlobulated",
            "ill defined",
            "indistinct",
            "angular",
            "spiculated",
        ),
    ),
    "calcification_type": Vocabulary(
        "Calcification Type",
        (
            "skin",
            "vascular",
            "coarse",
            "large rodlike",
            "round and regular",
            "lucent centered",
            "eggshell",
            "rim",
            "milk of calcium",
            "suture",
            "dystrophic",
            "punctate",
            "amorphous",
            "coarse heterogeneous",
            "pleomorphic",
            "fine pleomorphic",
            "fine linear branching",
        ),
        {
            "popcorn like": "coarse",
            "coarse or popcorn like": "coarse",
            "large rod like": "large rodlike",
            "round": "round and regular",
            "lucent center": "lucent centered",
            "fine linear": "fine linear branching",
            "fine linear or fine linear branching": "fine linear branching",
        },
    ),
    "calcification_distribution": Vocabulary(
        "Calcification Distribution",
        ("diffusely scattered", "regional", "clustered", "linear", "segmental"),
        {"diffuse": "diffusely scattered", "grouped": "clustered"},
    ),
    "breast_density": Vocabulary(
        "Breast Density",
        _DENSITIES,
        dict(zip("1234abcd", _DENSITIES * 2, strict=True)),  # 1 to 4 until the fourth edition, a to d since the fifth
        several=False,
    ),
    # Numbers as the readers wrote them: the lexicons have no words for the steps between subtle and obvious.
    "subtlety": Vocabulary("Subtlety (1 subtle to 5 obvious)", ("1", "2", "3", "4", "5"), several=False),
    "birads_assessment": Vocabulary(
        "BI-RADS Assessment", ("0", "1", "2", "3", "4", "4a", "4b", "4c", "5", "6"), several=False
    ),
    "echogenicity": Vocabulary(
        "Echogenicity",
        ("anechoic", "hyperechoic", "complex cystic and solid", "hypoechoic", "isoechoic", "heterogeneous"),
        {"complex cystic/solid": "complex cystic and solid"},
        several=False,
    ),
    "posterior_features": Vocabulary(
        "Posterior Features",
        (_NONE, "enhancement", "shadowing", "combined pattern"),
        {"no": _NONE, "no posterior features": _NONE, "combined": "combined pattern"},
        several=False,
    ),
    "halo": Vocabulary("Halo", ("absent", "present"), _ABSENT_OR_PRESENT, several=False),
    "ultrasound_calcifications": Vocabulary(
        "Calcifications on Ultrasound",
        (_NONE, "in a mass", "outside of a mass", "intraductal", "indefinable"),
        {"no": _NONE},
    ),
    "skin_thickening": Vocabulary("Skin Thickening", ("absent", "present"), _ABSENT_OR_PRESENT, several=False),
    "tissue_composition": Vocabulary("Tissue Composition", (*_TISSUES.values(), "lactating"), _TISSUES),
}
"""Every descriptor by its name, which is its column in a table without `PREFIX`.

The terms are those of CBIS-DDSM (Lee et al., Sci Data 4 (2017) 170177), of BrEaST (Pawłowska et al., Sci Data 11 (2024)
148) and of ACR BI-RADS, fifth edition (2013).
"""

_UNRATED = {"subtlety": "0"}  # two masses of CBIS-DDSM, whose scale begins at 1


def canonical(descriptor: str, text: str) -> str:
    """A value in its one spelling: the terms in the vocabulary's order, joined by ' and '; empty where not given.

    Case, underscores, hyphens, ampersands, repetition and order do not matter: ``SPICULATED-ILL_DEFINED`` is
    'ill defined and spiculated'. A dash and N/A are not given.

    Raises:
        RadllmError: an unknown descriptor or any word that its vocabulary does not have.
    """
    return " and ".join(terms(descriptor, text))


def terms(descriptor: str, text: str) -> tuple[str, ...]:
    """The terms of a value, in the vocabulary's order; RadllmError as in `canonical`."""
    vocabulary = _vocabulary(descriptor)
    words = _JOINERS.sub(" ", text.lower()).strip()
    if words in _NOT_GIVEN or words == _UNRATED.get(descriptor):
        return ()
    found = vocabulary.find(words)
    if not found:
        how_many = "one or more" if vocabulary.several else "one"
        raise RadllmError(
            f"'{PREFIX}{descriptor}' cannot be '{text.strip()[:40]}': use {how_many} of {', '.join(vocabulary.terms)}, "
            "or nothing."
        )
    return found


def parse_descriptors(assignments: Sequence[str]) -> dict[str, str]:
    """Descriptors from words such as ``mass_shape=oval``, canonical values by name.

    Raises:
        RadllmError: no such form, an unknown descriptor, one named twice, or a word outside its vocabulary.
    """
    found: dict[str, str] = {}
    for assignment in assignments:
        name, equals, text = assignment.partition("=")
        name = name.strip().removeprefix(PREFIX)
        if not equals:
            raise RadllmError(f"'{assignment[:60]}' is no descriptor: write it as mass_shape=oval.")
        if name in found:
            raise RadllmError(f"The descriptor '{name[:40]}' is given twice: give it once.")
        found[name] = canonical(name, text)
    return found


def descriptor_name(descriptor: str) -> str:
    """The words for a descriptor: ``mass_shape`` is 'Mass Shape'; RadllmError for an unknown one."""
    return _vocabulary(descriptor).title


def indicators(descriptors: Sequence[str], categories: NDArray[np.str_]) -> NDArray[np.float64]:
    """Descriptors as numbers for a classical model: 1.0 where a lesion has a term, [lesions × terms].

    The columns are those of `indicator_names`, whatever terms the lesions have: nothing is learned here. Where a
    descriptor was not given, all of its columns are 0.

    Args:
        descriptors: names, one a column of `categories`.
        categories: lesions × descriptors, as in `cohort.Lesions`.
    """
    import numpy as np  # here alone: prompts and the help of commands know the vocabularies, and not numpy

    rows = [
        [flag for descriptor, text in zip(descriptors, row, strict=True) for flag in _flags(descriptor, text)]
        for row in categories.tolist()
    ]
    return np.array(rows, dtype=float).reshape(len(rows), len(indicator_names(descriptors)))


def indicator_names(descriptors: Sequence[str]) -> list[str]:
    """The columns of `indicators`: 'Mass Shape: oval'."""
    return [f"{descriptor_name(name)}: {term}" for name in descriptors for term in VOCABULARIES[name].terms]


def _flags(descriptor: str, text: str) -> list[bool]:
    given = terms(descriptor, text)
    return [term in given for term in VOCABULARIES[descriptor].terms]


def _vocabulary(descriptor: str) -> Vocabulary:
    if descriptor not in VOCABULARIES:
        raise RadllmError(f"There is no descriptor '{descriptor[:40]}': the known ones are {', '.join(VOCABULARIES)}.")
    return VOCABULARIES[descriptor]
