"""A trained model: from the `Features` of a lesion to its `Prediction`."""

from __future__ import annotations

from bisect import bisect_left, bisect_right
from collections.abc import Sequence
from functools import cached_property
from importlib import metadata
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np
from numpy.typing import NDArray

from radllm_backend import __version__
from radllm_backend.base_models import locate
from radllm_backend.bundle import ADAPTER, Bundle, FeatureSummary, ModelCard, read_bundle
from radllm_backend.cautions import find_cautions
from radllm_backend.errors import RadllmError
from radllm_backend.explanation import occlusion_effects
from radllm_backend.extraction import Settings
from radllm_backend.feature_names import display_name
from radllm_backend.features import Features
from radllm_backend.prediction import FeatureShare, ModelIdentity, Prediction

if TYPE_CHECKING:
    from radllm_backend.llm import LoraClassifier, Progress

_VERSIONED = ("torch", "transformers", "peft")


class Model:
    """A verified bundle with its language model, which is loaded at the first prediction."""

    def __init__(self, bundle: Bundle, base: str | Path | None = None) -> None:
        """`Model.load` is the usual way.

        Args:
            base: where the base model lies, if not in the cache under the name in the card.
        """
        self.card: ModelCard = bundle.card
        self.sha256: str = bundle.sha256
        self.folder: Path = bundle.folder
        self.settings: Settings = bundle.card.extraction_settings()
        self._template = bundle.card.template()
        self._base = base

    @classmethod
    def load(cls, name_or_folder: str | Path, base: str | Path | None = None) -> Model:
        """A shipped model by name, or the user's own by folder.

        Raises:
            RadllmError: no such model, or it is damaged, unsafe, or of another version.
        """
        return cls(read_bundle(name_or_folder), base)

    @property
    def name(self) -> str:
        return self.card.name

    def predict(self, features: Features) -> Prediction:
        """The prediction of one lesion with the effect of each feature.

        Raises:
            RadllmError: a feature of the model is missing or undefined, or the base model is not there.
        """
        return self.predict_many([features], explain=True)[0]

    def predict_many(
        self, lesions: Sequence[Features], *, explain: bool = False, progress: Progress | None = None
    ) -> list[Prediction]:
        """Predictions of many lesions, each exactly as `predict` gives it.

        Args:
            explain: also compute each feature's effect, at the cost of one score more a feature.
            progress: called with (done, total) lesions.
        """
        standardised = [self._standardise(features) for features in lesions]
        prompts = [self._template.render(values) for values in standardised]
        logits = self._classifier.score(prompts, progress)
        return [
            self._prediction(features, values, prompt, logit, explain)
            for features, values, prompt, logit in zip(lesions, standardised, prompts, logits, strict=True)
        ]

    def embed(self, lesions: Sequence[Features]) -> NDArray[np.float32]:
        """The enhanced features: the language model's last hidden state, [lesions × hidden size]."""
        prompts = [self._template.render(self._standardise(features)) for features in lesions]
        return np.asarray(self._classifier.embed(prompts).numpy(), dtype=np.float32)

    def require(self, names: Sequence[str], where: str) -> None:
        """RadllmError where a table or a feature set lacks one of the model's features."""
        missing = [row.feature for row in self.card.features if row.feature not in names]
        if missing:
            raise RadllmError(
                f"{where} lacks {len(missing)} of the {len(self.card.features)} features that the model {self.name} "
                f"reads, first '{missing[0]}': extract with the settings '{self.card.settings_name}'."
            )

    @cached_property
    def _classifier(self) -> LoraClassifier:
        from safetensors.torch import load_file

        from radllm_backend.llm import AdapterShape, LoraClassifier, best_device

        reference = self.card.base
        base = locate(self._base if self._base is not None else reference.name)
        if base.sha256 != reference.sha256:
            raise RadllmError(
                f"The base model {base.name} is not the one the model {self.name} was trained on "
                f"({reference.name}, {reference.sha256[:12]}): pull or give that one."
            )
        classifier = LoraClassifier(base, AdapterShape(self.card.adapter.rank, self.card.adapter.alpha))
        classifier.load_weights(load_file(self.folder / ADAPTER))
        classifier.merge()
        return classifier.to(best_device())

    def _standardise(self, features: Features) -> list[float]:
        self.require(list(features.values), "This lesion")
        return [(self._value(features, row.feature) - row.mean) / row.deviation for row in self.card.features]

    @staticmethod
    def _value(features: Features, feature: str) -> float:
        value = features.values[feature]
        if value is None:
            raise RadllmError(
                f"The feature '{display_name(feature)}' is undefined for this lesion: check its mask and image."
            )
        return value

    def _prediction(
        self, features: Features, standardised: list[float], prompt: str, logit: float, explain: bool
    ) -> Prediction:
        calibration = self.card.calibration
        probability = calibration.probability(logit)
        effects: list[float | None] = [None] * len(standardised)
        if explain:
            raw = occlusion_effects(self._template, standardised, logit, self._classifier.score)
            effects = [calibration.slope * effect for effect in raw]
        shares = [
            self._share(summary, self._value(features, summary.feature), position, effect)
            for summary, position, effect in zip(self.card.features, standardised, effects, strict=True)
        ]
        return Prediction(
            probability=probability,
            call="likely malignant" if probability >= self.card.threshold else "likely benign",
            threshold=self.card.threshold,
            logit=logit,
            features=shares,
            cautions=find_cautions(features, self.card, self.settings.sha256),
            prompt=prompt,
            model=self.identity,
            extraction=features.extraction,
            versions={"radllm_backend": __version__, **{name: metadata.version(name) for name in _VERSIONED}},
        )

    @staticmethod
    def _share(summary: FeatureSummary, value: float, standardised: float, effect: float | None) -> FeatureShare:
        below, not_above = bisect_left(summary.quantiles, value), bisect_right(summary.quantiles, value)
        return FeatureShare(
            feature=summary.feature,
            name=display_name(summary.feature),
            value=value,
            standardised=standardised,
            training_percentile=100 * (below + not_above) / (2 * len(summary.quantiles)),
            effect=effect,
        )

    @cached_property
    def identity(self) -> ModelIdentity:
        """Who speaks, for predictions and reports."""
        training = self.card.training
        own = self.card.performance[0] if self.card.performance else None
        return ModelIdentity(
            name=self.card.name,
            sha256=self.sha256,
            base_model=self.card.base.name,
            base_sha256=self.card.base.sha256,
            modality=self.card.modality,
            trained_on=f"{training.lesions} lesions ({training.malignant} malignant) of {training.patients} patients. "
            f"{training.description}".strip(),
            auc=own.auc if own else None,
            auc_interval=own.auc_interval if own else None,
        )
