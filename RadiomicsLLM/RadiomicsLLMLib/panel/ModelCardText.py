"""A model's card in a few lines for the panel."""

from __future__ import annotations

from typing import Any

from slicer.i18n import tr as _

_MODALITIES = {"MG": _("mammograms"), "US": _("ultrasound images"), "CT": _("CT images"), "MR": _("MR images")}


def modelCardText(card: dict[str, Any]) -> str:
    """What the model was trained on, how well it does, for which modality, and what it reads.

    Args:
        card: the content of ``model.json``.
    """
    from radllm_backend.models.base_in_words import base_in_words, layers_in_words

    training = card["training"]
    read = layers_in_words(card["layers"]) if "layers" in card else ""
    names = [row["feature"].rpartition("_")[2] for row in card["features"]]
    names += [row["descriptor"].replace("_", " ") for row in card["descriptors"]]
    lines = [
        _("For {images}.").format(images=_MODALITIES.get(card["modality"], card["modality"])),
        _("Trained on {lesions} lesions ({malignant} malignant) of {patients} patients. {description}").format(
            **training
        ),
        _performance(card),
        _("Reads {count}: {names}.").format(count=len(names), names=", ".join(names)),
        _("Base model {name}. For research use only. Not for diagnosis.").format(
            name=base_in_words(card["base"]["name"], read)
        ),
    ]
    return "\n".join(line.strip() for line in lines if line)


def _performance(card: dict[str, Any]) -> str:
    if not card.get("performance"):
        return _("It was not cross-validated: how well it does is unknown.")
    own, *others = card["performance"]
    sentence = _("Out-of-fold AUC {auc} (95% interval {low} to {high}).").format(**_figures(own))
    if others:
        baseline = _(" Logistic regression on the same features: {auc} ({low} to {high}).")
        sentence += baseline.format(**_figures(others[0]))
    return sentence


def _figures(performance: dict[str, Any]) -> dict[str, str]:
    low, high = performance["auc_interval"]
    return {"auc": f"{performance['auc']:.3f}", "low": f"{low:.3f}", "high": f"{high:.3f}"}
