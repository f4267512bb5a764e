"""Reasons to trust a prediction less, each with its rule."""

from __future__ import annotations

from collections.abc import Iterator

from radllm_backend.features.descriptors import descriptor_name
from radllm_backend.features.names import depends_on_spacing, display_name
from radllm_backend.models.bundle import DescriptorSummary, FeatureSummary, ModelCard
from radllm_backend.models.prediction import Band, Caution, Typicality
from radllm_backend.records import Extraction, Features, Geometry, lesion_hash

FAR = 99.0
"""Percentage of the training lesions that lie nearer to their middle, from which on a lesion is far from them."""
MUCH = 1.5
"""Factor beyond the training images' pixel spacings from which on a spacing differs much."""

_MODALITY_NAMES = {"MG": "a mammogram", "US": "an ultrasound image", "CT": "a CT", "MR": "an MR image"}
_MODALITY_PLURALS = {"MG": "mammograms", "US": "ultrasound images", "CT": "CT", "MR": "MR images"}


def rules(card: ModelCard) -> list[tuple[str, str]]:
    """Every caution that a model can give, by its code, with the rule that it gives it by."""
    found = [("uncertain", "the probability lies in the uncertain band: the conformal set holds both classes or none")]
    if card.features:
        found += _rules_of_images(card)
        found += _rules_of_values(card)
    if card.descriptors:
        found += [
            ("descriptor-new", "a descriptor has a value that no training lesion had"),
            ("descriptor-missing", "a descriptor is missing that every training lesion had"),
        ]
    return found


def _rules_of_images(card: ModelCard) -> Iterator[tuple[str, str]]:
    yield "modality-unknown, modality-differs", f"the image does not say that it is {card.modality}, or is not"
    yield "settings-differ", "the hash of the extraction settings is not that of the training lesions"
    yield "training-lesion", "image and mask are those of a training lesion, by their hash"
    if any(depends_on_spacing(row.feature) for row in card.features):
        yield "spacing-unknown", "the image has no pixel spacing, and a feature is a length"
    if card.training.spacing:
        low, high = card.training.spacing
        yield (
            "spacing-differs",
            f"the pixel spacing is below {low / MUCH:.4g} or above {high * MUCH:.4g} mm: {MUCH:g} times beyond "
            "those of the training images",
        )
    if card.training.fewest_voxels is not None:
        yield "few-pixels", f"the lesion has fewer than {card.training.fewest_voxels} pixels, as no training lesion has"
    yield "touches-border", "the mask reaches the edge of the image"
    yield "no-provenance", "the values come from a table that does not say how they were extracted"


def _rules_of_values(card: ModelCard) -> Iterator[tuple[str, str]]:
    yield "outside-range", "a value is smaller or larger than in every training lesion"
    if card.spread:
        farthest = card.spread.distances[int(FAR)]
        yield (
            "far-from-training",
            f"the Mahalanobis distance of the standardised features from their training mean is above {farthest:.3g}, "
            f"which {FAR:.0f}% of the training lesions stay below",
        )


def find_cautions(features: Features, card: ModelCard, settings_sha256: str | None) -> list[Caution]:
    """All cautions of one lesion, the gravest first."""
    found: list[Caution] = []
    if features.extraction is not None:
        found += _about_extraction(features.extraction, card, settings_sha256)
    elif card.features:
        text = "These values came without their provenance, so image, modality and extraction settings are unchecked."
        found.append(Caution(code="no-provenance", text=text))
    found += _outside_range(features, card.features)
    found += _about_descriptors(features, card.descriptors)
    return found


def about_distance(typicality: Typicality) -> Caution:
    """The caution of a lesion that is unlike the training lesions as a whole."""
    return Caution(
        code="far-from-training",
        text=f"All features together, the lesion lies farther from the middle of the training lesions than "
        f"{typicality.percentile:.0f}% of them do: it is unlike what the model was trained on.",
    )


def about_uncertainty(band: Band) -> Caution:
    """The caution of a lesion whose probability lies in the uncertain band."""
    return Caution(
        code="uncertain",
        text=f"The probability lies in the model's uncertain band ({band}): at a confidence of "
        f"{100 * band.confidence:.4g}% the lesion can be called neither likely benign nor likely malignant.",
    )


def _about_extraction(extraction: Extraction, card: ModelCard, settings_sha256: str | None) -> Iterator[Caution]:
    trained = _MODALITY_PLURALS[card.modality]
    if extraction.modality is None:
        yield Caution(
            code="modality-unknown",
            text=f"The image does not say its modality, and the model was trained on {trained} only.",
        )
    elif extraction.modality != card.modality:
        yield Caution(
            code="modality-differs",
            text=f"The model was trained on {trained} and this is {_MODALITY_NAMES[extraction.modality]}: "
            "it is outside the model's modality and the probability means nothing.",
        )
    if settings_sha256 is not None and extraction.settings_sha256 != settings_sha256:
        yield Caution(
            code="settings-differ",
            text=f"The features were extracted with other settings ({extraction.preset}) than the model's "
            f"({card.settings_name}), so their values do not compare.",
        )
    if lesion_hash(extraction) in card.training.lesion_hashes:
        yield Caution(
            code="training-lesion",
            text="This lesion is one of the model's training lesions: its probability says nothing about accuracy.",
        )
    if not extraction.geometry.spacing_known and any(depends_on_spacing(row.feature) for row in card.features):
        yield Caution(
            code="spacing-unknown",
            text="The image has no pixel spacing and the model reads lengths in mm: give the spacing.",
        )
    yield from _about_spacing(extraction.geometry, card.training.spacing)
    fewest = card.training.fewest_voxels
    if fewest is not None and extraction.geometry.voxels < fewest:
        yield Caution(
            code="few-pixels",
            text=f"The lesion has {extraction.geometry.voxels} pixels, fewer than any training lesion ({fewest}).",
        )
    if extraction.geometry.touches_border:
        yield Caution(code="touches-border", text="The lesion reaches the edge of the image, so a part may be missing.")


def _about_spacing(geometry: Geometry, trained: tuple[float, float] | None) -> Iterator[Caution]:
    """Texture hangs on the pixel's size, also where no feature is a length."""
    if trained is None or not geometry.spacing_known:
        return
    own = geometry.spacing[:2]
    if min(own) < trained[0] / MUCH or max(own) > trained[1] * MUCH:
        yield Caution(
            code="spacing-differs",
            text=f"The pixels measure {' × '.join(f'{size:.4g}' for size in own)} mm, and those of the training images "
            f"{trained[0]:.4g} to {trained[1]:.4g} mm: texture does not compare.",
        )


def _outside_range(features: Features, summaries: list[FeatureSummary]) -> Iterator[Caution]:
    for summary in summaries:
        value = features.values.get(summary.feature)
        low, high = summary.quantiles[0], summary.quantiles[-1]
        if value is not None and not low <= value <= high:
            yield Caution(
                code="outside-range",
                text=f"{display_name(summary.feature)} is {value:.4g}, outside the training lesions' range "
                f"({low:.4g} to {high:.4g}).",
            )


def _about_descriptors(features: Features, summaries: list[DescriptorSummary]) -> Iterator[Caution]:
    for summary in summaries:
        value, name = features.descriptors.get(summary.descriptor, ""), descriptor_name(summary.descriptor)
        if summary.counts.get(value):
            continue
        if value:
            text = f"{name} is '{value}', which no training lesion had: the model has not learned what it means."
            yield Caution(code="descriptor-new", text=text)
        else:
            text = f"{name} was not given, and every training lesion had it."
            yield Caution(code="descriptor-missing", text=text)
