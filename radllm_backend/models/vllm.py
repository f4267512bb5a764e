"""Scores from a vLLM server that is there already: ``radllm serve --engine vllm --url URL``.

The server serves what ``radllm export`` wrote, under the name that it printed: the name says which weights they are, so
that another model's scores are never taken for this one's. Only prompts are sent, and they are names and numbers.
"""

from __future__ import annotations

import contextlib
import http.client
import json
import math
import os
import ssl
from collections.abc import Collection, Sequence
from functools import cached_property
from typing import Any, NoReturn
from urllib.parse import SplitResult, urlsplit

from pydantic import BaseModel, Field, ValidationError

from radllm_backend.errors import RadllmError
from radllm_backend.language.prompt import Readout
from radllm_backend.language.reader import PromptReader
from radllm_backend.models.bundle import ADAPTER, Bundle
from radllm_backend.models.export import LABELS, export_name, require_lora_head
from radllm_backend.models.model import Model
from radllm_backend.records import Progress

KEY_VARIABLE = "RADLLM_VLLM_KEY"
"""Environment variable with the vLLM server's API key, where it wants one."""
_BATCH = 64
_SECONDS = 300
_LARGEST_ANSWER = 64 * 2**20
_TOLERANCE = 1e-3
_NO_STATES = "The engine vllm gives no hidden states: serve the model with radllm's own engine for them."


class EngineError(RadllmError):
    """The server that computes the scores does not, whatever the lesion."""


class _Classification(BaseModel):
    """One prompt's part of the answer of vLLM's ``/classify``."""

    index: int
    probs: list[float] = Field(min_length=2, max_length=2)


class _Classifications(BaseModel):
    """The answer of vLLM's ``/classify``, as far as it matters here."""

    model: str
    data: list[_Classification]


class VllmClassifier:
    """A `reader.PromptReader` whose language model runs elsewhere: prompts in, log-odds of malignancy out."""

    def __init__(self, url: str, name: str, bias: float) -> None:
        """
        Args:
            url: of the vLLM server, ``http://HOST:PORT`` or ``https://HOST:PORT``.
            name: what the exported model is served under.
            bias: of the model's head, which the exported weights have no place for.
        """
        self._name, self._bias = name, bias
        self._parts = _parts(url)
        self._address = f"{self._parts.scheme}://{self._parts.netloc}"

    def effort(self, prompts: Sequence[str]) -> float:
        """In requests: vLLM reads the prompts of one together."""
        return float(math.ceil(len(set(prompts)) / _BATCH))

    def score(self, prompts: Sequence[str], progress: Progress | None = None) -> list[float]:
        """Log-odds of malignancy, one a prompt; vLLM itself reads what prompts have in common once.

        Raises:
            EngineError: the vLLM server does not answer, or not with this model's scores.
        """
        texts = list(dict.fromkeys(prompts))
        scores: dict[str, float] = {}
        for start in range(0, len(texts), _BATCH):
            batch = texts[start : start + _BATCH]
            scores.update(zip(batch, self._classify(batch), strict=True))
            if progress:
                progress("Reading prompts", len(scores) / len(texts))
        return [scores[prompt] for prompt in prompts]

    @property
    def depth(self) -> NoReturn:
        """Always a RadllmError: what has no hidden states has no layers to read them from."""
        raise RadllmError(_NO_STATES)

    def tokenise(self, prompt: str) -> NoReturn:
        """Always a RadllmError: vLLM does so itself."""
        raise RadllmError("The engine vllm keeps its tokens to itself: use radllm's own engine for them.")

    def embed(
        self, prompts: Sequence[str], readouts: Collection[Readout], progress: Progress | None = None
    ) -> NoReturn:
        """Always a RadllmError: vLLM's classification endpoint keeps the hidden states to itself."""
        raise RadllmError(_NO_STATES)

    def _classify(self, prompts: list[str]) -> list[float]:
        answer = self._post("/classify", {"model": self._name, "input": prompts})
        try:
            found = _Classifications.model_validate_json(answer)
        except ValidationError as error:
            raise EngineError(
                f"The server at {self._address} does not classify as vLLM does: serve the folder of radllm export "
                "with vLLM's pooling runner."
            ) from error
        probabilities = {row.index: row.probs for row in found.data}
        if found.model != self._name or sorted(probabilities) != list(range(len(prompts))):
            raise EngineError(f"The vLLM server at {self._address} answered something else than it was asked.")
        return [self._log_odds(probabilities[index]) for index in range(len(prompts))]

    def _log_odds(self, probabilities: list[float]) -> float:
        benign, malignant = probabilities
        if min(probabilities) <= 0 or abs(benign + malignant - 1) > _TOLERANCE:
            raise EngineError(
                f"The vLLM server at {self._address} gives no probabilities of {' and '.join(LABELS)}: serve the model "
                "with --dtype float32 and its own activation."
            )
        return math.log(malignant) - math.log(benign) + self._bias

    def _post(self, path: str, content: dict[str, Any]) -> bytes:
        headers = {"Content-Type": "application/json"}
        if key := os.environ.get(KEY_VARIABLE):
            headers["Authorization"] = f"Bearer {key}"
        connection = self._connection()
        try:
            connection.request("POST", self._parts.path.rstrip("/") + path, json.dumps(content).encode(), headers)
            response = connection.getresponse()
            answer = response.read(_LARGEST_ANSWER)
        except (OSError, http.client.HTTPException) as error:
            raise EngineError(f"The vLLM server at {self._address} does not answer: check that it runs.") from error
        finally:
            connection.close()
        if response.status == 404:
            raise EngineError(
                f"The vLLM server at {self._address} does not serve {self._name}: export the model with radllm "
                "export and serve it under the name that it prints."
            )
        if response.status != 200:
            raise EngineError(
                f"The vLLM server at {self._address} refused the prompts (status {response.status}): see its log, "
                f"and set {KEY_VARIABLE} if it wants a key."
            )
        return answer

    def _connection(self) -> http.client.HTTPConnection:
        host, port = str(self._parts.hostname), self._parts.port
        if self._parts.scheme == "https":
            return http.client.HTTPSConnection(host, port, timeout=_SECONDS, context=ssl.create_default_context())
        return http.client.HTTPConnection(host, port, timeout=_SECONDS)


def _parts(url: str) -> SplitResult:
    """Of a vLLM server's address, which has a path at times; that of a radllm server has none, and may be a socket."""
    with contextlib.suppress(ValueError):  # a port or an IPv6 address that is none
        parts = urlsplit(url)
        if parts.scheme in ("http", "https") and parts.hostname and not (parts.username or parts.query):
            _ = parts.port
            return parts
    raise RadllmError(f"'{url[:80]}' is no address of a vLLM server: give --url http://HOST:PORT.")


class VllmModel(Model):
    """A model whose scores come from a vLLM server; everything else is computed here, without torch."""

    def __init__(self, bundle: Bundle, url: str) -> None:
        """
        Raises:
            RadllmError: the model has no LoRA head, or the address is none.
        """
        require_lora_head(bundle.card)
        super().__init__(bundle)
        self._url = url
        self._served_name = export_name(bundle.card, bundle.sha256)

    @cached_property
    def reader(self) -> PromptReader:
        from safetensors.numpy import load_file

        bias = float(load_file(self.folder / ADAPTER)["head.bias"][0])
        return VllmClassifier(self._url, self._served_name, bias)

    @cached_property
    def neighbourhood(self) -> None:
        """None: the server keeps the hidden states to itself, so no training lesion can be said to be near."""
