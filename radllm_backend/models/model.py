"""A trained model: from the `Features` of a lesion to its `Prediction`."""

from __future__ import annotations

from bisect import bisect_left, bisect_right
from collections.abc import Sequence
from functools import cache, cached_property
from importlib import metadata
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np
from numpy.typing import NDArray

from radllm_backend import __version__
from radllm_backend.errors import RadllmError
from radllm_backend.features.descriptors import canonical, descriptor_name, indicators
from radllm_backend.features.extraction_settings import Settings
from radllm_backend.features.names import display_name
from radllm_backend.language.base_models import locate
from radllm_backend.language.prompt import Pooling, Readout
from radllm_backend.models.bundle import ADAPTER, Bundle, FeatureSummary, ModelCard, read_bundle
from radllm_backend.models.cautions import FAR, about_distance, about_uncertainty, find_cautions
from radllm_backend.models.conformal import DEFAULT_CONFIDENCE, band, check_confidence
from radllm_backend.models.explainer import Explainer, LesionReading
from radllm_backend.models.explanation import Variants
from radllm_backend.models.heads import Head, HiddenStates, read_head, readout_of
from radllm_backend.models.prediction import (
    Band,
    Caution,
    DescriptorShare,
    FeatureShare,
    ModelIdentity,
    Prediction,
    Typicality,
    call_word,
)
from radllm_backend.models.reference import Neighbourhood
from radllm_backend.records import Features, Progress

if TYPE_CHECKING:
    from radllm_backend.language.reader import PromptReader

_VERSIONED = ("numpy", "tokenizers")


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
        self._settings = bundle.card.extraction_settings()
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

    def warm_up(self) -> None:
        """Load the language model now; RadllmError where its base model is not there."""
        self.reader  # noqa: B018

    def predict(
        self, features: Features, *, explain: bool = True, confidence: float = DEFAULT_CONFIDENCE
    ) -> Prediction:
        """The prediction of one lesion with its reasons: each feature's share, what would change the call, and the
        nearest training lesions.

        Args:
            explain: give the reasons too; without them (``explain=False``) a prediction costs 4 to 20 times less.
            confidence: of the uncertain band, 0.5..0.99 (`conformal.band`): the higher, the wider. A model without a
                conformal reference has no band, and calls no lesion uncertain.

        Raises:
            RadllmError: a feature of the model is missing or undefined, the base model is not there, or there is no
                such confidence.
        """
        return self.predict_many([features], explain=explain, confidence=confidence)[0]

    def predict_many(
        self,
        lesions: Sequence[Features],
        *,
        explain: bool = True,
        progress: Progress | None = None,
        confidence: float = DEFAULT_CONFIDENCE,
    ) -> list[Prediction]:
        """Predictions of many lesions, each exactly as `predict` gives it.

        Args:
            explain: give the reasons too; without them (``explain=False``) a prediction costs 4 to 20 times less.
            progress: told as lesions are read, before their reasons are sought; an exception that it raises ends the
                call.
            confidence: of the uncertain band, as in `predict`.

        Raises:
            RadllmError: as `predict`; one such lesion ends the call.
        """
        uncertain = self._band(confidence)
        readings = [self.read(features) for features in lesions]
        logits, hidden = self._logits(readings, progress)
        predictions = [
            self._prediction(features, reading, logit, uncertain)
            for features, reading, logit in zip(lesions, readings, logits, strict=True)
        ]
        if not explain:
            return predictions
        return [
            self.explainer.explain(prediction, reading, _row(hidden, index) if hidden else None)
            for index, (prediction, reading) in enumerate(zip(predictions, readings, strict=True))
        ]

    def embed(self, lesions: Sequence[Features], pooling: Pooling = "last") -> NDArray[np.float32]:
        """The enhanced features: the last layer that the model reads, [lesions × hidden size].

        Without an adapter they are those of the frozen base model.

        Args:
            pooling: the last token's hidden state, or the mean of all tokens'.
        """
        prompts = [self.read(features).prompt for features in lesions]
        readout = Readout(self._layers, pooling)
        return self.reader.embed(prompts, [readout])[readout]

    def require(self, names: Sequence[str], where: str) -> None:
        """RadllmError where a table or a feature set lacks one of the model's features."""
        missing = [row.feature for row in self.card.features if row.feature not in names]
        if missing:
            raise RadllmError(
                f"{where} lacks {len(missing)} of the {len(self.card.features)} features that the model {self.name} "
                f"reads, first '{missing[0]}': extract with the settings '{self.card.settings_name}'."
            )

    @property
    def settings(self) -> Settings:
        """How a lesion's features have to be extracted; RadllmError for a model that reads descriptors only."""
        if self._settings is None:
            raise RadllmError(
                f"The model {self.name} reads the radiologist's descriptors and no features of an image: "
                "use radllm describe, or radllm predict with a table of descriptors."
            )
        return self._settings

    @cached_property
    def reader(self) -> PromptReader:
        """The language model with the adapter added in; RadllmError where the base model is not there."""
        from radllm_backend.language.adapters import Adapter, AdapterShape
        from radllm_backend.language.reader import open_reader

        reference, adapter = self.card.base, self.card.adapter
        base = locate(self._base if self._base is not None else reference.name)
        if base.sha256 != reference.sha256:
            raise RadllmError(
                f"The base model {base.name} is not the one the model {self.name} was trained on "
                f"({reference.name}, {reference.sha256[:12]}): pull or give that one."
            )
        trained = None
        if adapter:
            from safetensors.numpy import load_file

            trained = Adapter(load_file(self.folder / ADAPTER), AdapterShape(adapter.rank, adapter.alpha))
        return open_reader(base, trained, self.card.layers)

    @property
    def _layers(self) -> int:
        """How many of the base model's layers it reads."""
        return self.card.layers or self.reader.depth

    @cached_property
    def explainer(self) -> Explainer:
        """What finds the reasons of its predictions; RadllmError where the bundle's training lesions are malformed."""
        return Explainer(self.card, self.neighbourhood, self._score, self._effort, self._hidden_of)

    @cached_property
    def neighbourhood(self) -> Neighbourhood | None:
        """The training lesions as the model reads them; None where the bundle keeps none."""
        return Neighbourhood.read(self.folder, self._readout) if self.card.knows_neighbours else None

    def read(self, features: Features) -> LesionReading:
        """A lesion as the model reads it.

        Raises:
            RadllmError: a feature of the model is missing or undefined, or a model that reads descriptors only gets
                none.
        """
        self.require(list(features.values), "This lesion")
        values = [(self._value(features, row.feature) - row.mean) / row.deviation for row in self.card.features]
        given = [features.descriptors.get(row.descriptor, "") for row in self.card.descriptors]
        if given and not values and not any(given):
            names = ", ".join(row.descriptor for row in self.card.descriptors)
            raise RadllmError(
                f"The model {self.name} reads descriptors and this lesion has none: give some of {names}."
            )
        return LesionReading(values, given, self._template.render(values, given))

    @cached_property
    def _head(self) -> Head | None:
        if self.card.head is None:
            return None
        nothing = LesionReading([0.0] * len(self.card.features), [""] * len(self.card.descriptors), "")
        return read_head(self.card.head, self.folder, self._layers, self._design(nothing).shape[1])

    @property
    def _readout(self) -> Readout:
        """Which hidden state its head and its neighbours are made of."""
        return readout_of(self._head, self._layers)

    def _logits(
        self, readings: Sequence[LesionReading], progress: Progress | None = None
    ) -> tuple[list[float], HiddenStates | None]:
        """The score of each lesion, and the hidden states where a head reads them.

        A lesion's score does not depend on which others are scored with it.
        """
        prompts = [reading.prompt for reading in readings]
        if not prompts:
            return [], None
        if self._head is None:
            return self.reader.score(prompts, progress), None
        hidden = self._hidden(prompts, progress)
        logits = [
            float(self._head.logits(self._design(reading), _row(hidden, index))[0])
            for index, reading in enumerate(readings)
        ]
        return logits, hidden

    def _hidden(self, prompts: Sequence[str], progress: Progress | None = None) -> HiddenStates:
        return self.reader.embed(prompts, [self._readout], progress)

    def _design(self, reading: LesionReading) -> NDArray[np.float64]:
        """What the prompt says as numbers, [1 × columns], as `PromptWriter.design` has it."""
        descriptors = [row.descriptor for row in self.card.descriptors]
        flags = indicators(descriptors, np.array([reading.descriptors], dtype=str))
        return np.hstack([np.array([reading.standardised], dtype=np.float64), flags])

    def _hidden_of(self, prompt: str) -> HiddenStates:
        return self._hidden([prompt])

    def _score(self, variants: Variants) -> list[float]:
        """Log-odds of variants of a lesion."""
        return self._logits(self._variants(variants))[0]

    def _effort(self, variants: Variants) -> float:
        return self.reader.effort([one.prompt for one in self._variants(variants)])

    def _variants(self, variants: Variants) -> list[LesionReading]:
        pairs = zip(*variants, strict=True)
        return [LesionReading(values, named, self._template.render(values, named)) for values, named in pairs]

    @staticmethod
    def _value(features: Features, feature: str) -> float:
        value = features.values[feature]
        if value is None:
            raise RadllmError(
                f"The feature '{display_name(feature)}' is undefined for this lesion: check its mask and image."
            )
        return value

    def _band(self, confidence: float) -> Band | None:
        """Where this model is uncertain, its threshold always inside."""
        check_confidence(confidence)
        if self.card.conformal is None:
            return None
        return band(self.card.conformal, confidence).around(self.card.threshold)

    def _cautions(
        self, features: Features, probability: float, uncertain: Band | None, typicality: Typicality | None
    ) -> list[Caution]:
        cautions = find_cautions(features, self.card, self._settings.sha256 if self._settings else None)
        if typicality is not None and typicality.percentile >= FAR:
            cautions.append(about_distance(typicality))
        if uncertain is not None and uncertain.holds(probability):
            cautions.append(about_uncertainty(uncertain))
        return cautions

    def _prediction(
        self, features: Features, reading: LesionReading, logit: float, uncertain: Band | None
    ) -> Prediction:
        """Without its reasons."""
        probability = self.card.calibration.probability(logit)
        typicality = self.card.spread.typicality(reading.standardised) if self.card.spread else None
        return Prediction(
            probability=probability,
            call=call_word(probability, self.card.threshold, uncertain),
            threshold=self.card.threshold,
            band=uncertain,
            logit=logit,
            features=[
                self._share(summary, self._value(features, summary.feature), position)
                for summary, position in zip(self.card.features, reading.standardised, strict=True)
            ],
            descriptors=[
                DescriptorShare(
                    descriptor=row.descriptor,
                    name=descriptor_name(row.descriptor),
                    value=canonical(row.descriptor, given),
                )
                for row, given in zip(self.card.descriptors, reading.descriptors, strict=True)
            ],
            typicality=typicality,
            cautions=self._cautions(features, probability, uncertain, typicality),
            prompt=reading.prompt,
            model=self.identity,
            extraction=features.extraction,
            versions=_versions(),
        )

    @staticmethod
    def _share(summary: FeatureSummary, value: float, standardised: float) -> FeatureShare:
        below, not_above = bisect_left(summary.quantiles, value), bisect_right(summary.quantiles, value)
        return FeatureShare(
            feature=summary.feature,
            name=display_name(summary.feature),
            value=value,
            standardised=standardised,
            training_percentile=100 * (below + not_above) / (2 * len(summary.quantiles)),
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


def _row(hidden: HiddenStates, index: int) -> HiddenStates:
    """The hidden states of one lesion, [1 × hidden size]."""
    return {readout: rows[[index]] for readout, rows in hidden.items()}


@cache
def _versions() -> dict[str, str]:
    """Of the packages that compute a probability. Looking them up takes longer than a small model's score."""
    return {"radllm_backend": __version__, **{name: metadata.version(name) for name in _VERSIONED}}
