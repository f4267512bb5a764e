"""The models that a server answers for: verified at start, known by name only, no more in memory than may be."""

from __future__ import annotations

import gc
import json
import threading
from collections import OrderedDict
from collections.abc import Callable, Sequence

from radllm_backend.errors import RadllmError
from radllm_backend.language.base_models import locate
from radllm_backend.models.bundle import Bundle, ModelCard, read_bundle
from radllm_backend.models.model import Model
from radllm_backend.models.vllm import EngineError
from radllm_backend.records import Features
from radllm_backend.server import protocol
from radllm_backend.server.queue import Question

Build = Callable[[Bundle], Model]
"""Makes a model of its bundle, quickly: what is large is loaded when it scores first."""
_FP32 = 4


class ModelUnavailableError(Exception):
    """A model that was there at start cannot be loaded now. Its cause is for the log, not for clients."""


class ModelStore:
    """Models by name. `describe` and `names` may be called from any thread, the rest from the scoring thread."""

    def __init__(
        self,
        bundles: Sequence[Bundle],
        build: Build = Model,
        size: Callable[[Bundle], int] = lambda bundle: 0,
        memory: int | None = None,
    ) -> None:
        """
        Args:
            build: makes a model of its bundle.
            size: bytes that a bundle's model takes in memory.
            memory: bytes that all models in memory may take together; None for as many as there are.

        Raises:
            RadllmError: two models have one name, or one alone is larger than the memory.
        """
        self._bundles: dict[str, Bundle] = {}
        for bundle in bundles:
            if bundle.card.name in self._bundles:
                raise RadllmError(f"Two models are called {bundle.card.name}: serve one of them, or rename it.")
            self._bundles[bundle.card.name] = bundle
        self._descriptions = [_description(bundle) for bundle in self._bundles.values()]
        self._build, self._memory = build, memory
        self._sizes = {name: size(bundle) for name, bundle in self._bundles.items()} if memory is not None else {}
        for name, needed in self._sizes.items():
            if memory is not None and needed > memory:
                raise RadllmError(
                    f"The model {name} alone takes {needed / 1e9:.2f} GB and --memory allows {memory / 1e9:.2f}: "
                    "allow more."
                )
        self._loaded: OrderedDict[str, Model] = OrderedDict()
        self._lock = threading.Lock()

    @property
    def names(self) -> list[str]:
        return list(self._bundles)

    def sha256(self, name: str) -> str:
        """The identity of a model; KeyError for an unknown name."""
        return self._bundles[name].sha256

    def loaded(self) -> list[str]:
        """The models in memory, the one used last at the end."""
        with self._lock:
            return list(self._loaded)

    def describe(self) -> list[protocol.ServedModel]:
        """Every model with its card."""
        return list(self._descriptions)

    def sample(self, name: str) -> Features:
        """A lesion in the middle of a model's training lesions: for warming up, and as an example."""
        return sample_lesion(self._bundles[name].card)

    def warm_up(self) -> None:
        """Load the models, as many as the memory holds, and let each score once.

        Raises:
            RadllmError: a model cannot be loaded.
        """
        for name in self._first_to_load():
            try:
                self._get(name)
            except ModelUnavailableError as error:
                raise RadllmError(str(error.__cause__)) from error

    def score(self, question: Question, lesions: Sequence[Features]) -> list[bytes]:
        """The answer to each lesion, as JSON.

        Raises:
            ModelUnavailableError: the model cannot be loaded again.
            RadllmError: a lesion cannot be scored; its text names no file.
        """
        model = self._get(question.model)
        try:
            return self._answers(model, question, lesions)
        except EngineError as error:
            raise ModelUnavailableError(question.model) from error

    @staticmethod
    def _answers(model: Model, question: Question, lesions: Sequence[Features]) -> list[bytes]:
        if question.call == "embed":
            return [json.dumps(row).encode() for row in model.embed(lesions, question.pooling).tolist()]
        explain = question.call == "explain"
        predictions = model.predict_many(lesions, explain=explain, confidence=question.confidence)
        return [prediction.model_dump_json().encode() for prediction in predictions]

    def _get(self, name: str) -> Model:
        with self._lock:
            model = self._loaded.get(name)
            if model is not None:
                self._loaded.move_to_end(name)
                return model
            self._make_room(name)
        try:
            model = self._load(name)
        except RadllmError as error:
            raise ModelUnavailableError(name) from error
        with self._lock:
            self._loaded[name] = model
        return model

    def _load(self, name: str) -> Model:
        known = self._bundles[name]
        bundle = read_bundle(known.folder)  # verified again: it may be long since the start
        if bundle.sha256 != known.sha256:
            raise RadllmError(f"The model {name} was replaced while it was served: start the server again.")
        model = self._build(bundle)
        model.predict(self.sample(name), explain=False)  # everything large is loaded now
        return model

    def _make_room(self, name: str) -> None:
        if self._memory is None:
            return
        while self._loaded and sum(self._sizes[other] for other in self._loaded) + self._sizes[name] > self._memory:
            self._loaded.popitem(last=False)
            gc.collect()

    def _first_to_load(self) -> list[str]:
        """In the given order, as many as the memory holds."""
        if self._memory is None:
            return self.names
        chosen, total = [], 0
        for name in self.names:
            total += self._sizes[name]
            if total > self._memory:
                break
            chosen.append(name)
        return chosen


def sample_lesion(card: ModelCard) -> Features:
    """The median of each feature, and the most frequent term of each descriptor, among a model's training lesions."""
    descriptors = {}
    for row in card.descriptors:
        given = {term: count for term, count in row.counts.items() if term}
        if given:
            descriptors[row.descriptor] = max(given, key=given.__getitem__)
    values: dict[str, float | None] = {row.feature: row.quantiles[len(row.quantiles) // 2] for row in card.features}
    return Features(values=values, descriptors=descriptors)


def weights_in_memory(bundle: Bundle, base: str | None = None) -> int:
    """Bytes of a model's weights once loaded, in 32 bits, from the headers of its base model's files.

    Raises:
        RadllmError: the base model is not on this computer.
    """
    from safetensors import safe_open

    found = locate(base if base is not None else bundle.card.base.name)
    count = 0
    for path in found.folder.glob("*.safetensors"):
        with safe_open(path, framework="numpy") as file:
            for name in file.keys():  # noqa: SIM118 - not a dict
                size = 1
                for length in file.get_slice(name).get_shape():
                    size *= length
                count += size
    return _FP32 * count


def _description(bundle: Bundle) -> protocol.ServedModel:
    card = bundle.card
    return protocol.ServedModel(
        identity=Model(bundle).identity,
        features=[row.feature for row in card.features],
        descriptors=[row.descriptor for row in card.descriptors],
        settings_name=card.settings_name,
        settings=card.settings,
        card=card.model_dump(mode="json"),
    )
