"""What crosses the socket between `client` and `process`: names and numbers in closed models, and nothing else.

There is no field for an image, and none for free text: every string is a feature's canonical name, a term of a closed
vocabulary, a hash, a version, or the short name of a model or preset. Both sides import this file, so that they cannot
disagree.
"""

from __future__ import annotations

import re
from collections.abc import Sequence
from typing import TYPE_CHECKING, Annotated, Any, Final, Literal

from pydantic import AfterValidator, Field, ValidationError, field_validator

from radllm_backend.errors import RadllmError
from radllm_backend.features.descriptors import VOCABULARIES, canonical
from radllm_backend.features.names import split_name
from radllm_backend.language.prompt import Pooling
from radllm_backend.models.conformal import DEFAULT_CONFIDENCE, HIGHEST_CONFIDENCE, LOWEST_CONFIDENCE
from radllm_backend.models.prediction import ModelIdentity, Prediction
from radllm_backend.records import SHA256, Extraction, Features, Geometry, ModelName, Record

if TYPE_CHECKING:
    from pydantic_core import ErrorDetails

PROTOCOL: Final = 2
"""Raised with every change that the other side has to know of."""
OLDEST_PROTOCOL: Final = 2
"""The oldest version that this radllm still speaks."""
PROTOCOL_HEADER: Final = "Radllm-Protocol"

MOST_LESIONS: Final = 256
MOST_FEATURES: Final = 4000
"""Of one lesion; PyRadiomics with every filter yields about 1,900."""
MOST_BYTES: Final = 8 * 2**20
"""Of one request's body."""
_LARGEST = 1e30  # a larger one is no measurement, and its digits would make a prompt of thousands of tokens
_MOST_VERSIONS = 16
_WITH_NAMES_OF_THEIR_OWN = ("values", "versions", "descriptors")
_CLOSED: dict[str, Any] = {"additionalProperties": False}
"""For the OpenAPI page: no key but those of the pattern."""

Code = Literal[
    "bad-token",
    "busy",
    "internal",
    "loading",
    "malformed",
    "not-found",
    "other-model",
    "other-version",
    "stopping",
    "too-large",
    "unavailable",
    "unknown-model",
    "unusable",
    "web-page",
    "wrong-host",
    "wrong-method",
]


def _known_feature(name: str) -> str:
    try:
        split_name(name)
    except RadllmError as error:
        raise ValueError("not a PyRadiomics feature name") from error
    return name


FeatureName = Annotated[
    str,
    Field(pattern=r"^[A-Za-z0-9-]{1,40}_[A-Za-z0-9]{1,12}_[A-Za-z0-9]{1,60}$"),
    AfterValidator(_known_feature),
]
_Number = Annotated[float, Field(strict=True, ge=-_LARGEST, le=_LARGEST)]
_Length = Annotated[float, Field(strict=True, gt=0, le=1e6)]
_Flag = Annotated[bool, Field(strict=True)]
_Count = Annotated[int, Field(strict=True, ge=1, le=10**12)]
_Index = Annotated[int, Field(strict=True, ge=0, le=10**7)]
_PresetName = Annotated[str, Field(pattern=r"^[a-z][a-z0-9-]{0,39}$")]
_PackageName = Annotated[str, Field(pattern=r"^[A-Za-z][A-Za-z0-9_-]{0,39}$")]
_Version = Annotated[str, Field(pattern=r"^[0-9][0-9A-Za-z.+_-]{0,39}$")]
_Term = Annotated[str, Field(pattern=r"^[a-z0-9 ]{1,400}$")]
_Vocabulary = Annotated[str, Field(pattern="^(" + "|".join(VOCABULARIES) + ")$")]


class SentGeometry(Geometry):
    """`Geometry` within bounds."""

    size: tuple[_Count, ...] = Field(min_length=2, max_length=3)
    spacing: tuple[_Length, ...] = Field(min_length=2, max_length=3)
    spacing_known: _Flag
    bounding_box: tuple[_Index, ...] = Field(min_length=4, max_length=6)
    voxels: _Count
    touches_border: _Flag


class SentExtraction(Extraction):
    """`Extraction` whose every string has a fixed pattern."""

    preset: _PresetName
    versions: dict[_PackageName, _Version] = Field(max_length=_MOST_VERSIONS, json_schema_extra=_CLOSED)
    modality: Literal["MG", "US", "CT", "MR"] | None
    geometry: SentGeometry


class SentLesion(Features):
    """`Features` that may cross the socket: known names, finite numbers, terms of closed vocabularies."""

    values: dict[FeatureName, _Number | None] = Field(max_length=MOST_FEATURES, json_schema_extra=_CLOSED)
    extraction: SentExtraction | None = None
    descriptors: dict[_Vocabulary, _Term] = Field({}, max_length=len(VOCABULARIES), json_schema_extra=_CLOSED)

    @field_validator("descriptors")
    @classmethod
    def _are_canonical(cls, given: dict[str, str]) -> dict[str, str]:
        for descriptor, text in given.items():
            try:
                known = canonical(descriptor, text)
            except RadllmError as error:
                raise ValueError("a word outside the descriptor's vocabulary") from error
            if known != text:
                raise ValueError("a term that is not in its canonical spelling")
        return given


class Request(Record):
    """Lesions for one model."""

    model: ModelName
    sha256: SHA256 | None = None
    """The model's hash where it matters that it is this very model; None for whatever has the name."""
    lesions: list[SentLesion] = Field(min_length=1, max_length=MOST_LESIONS)


class PredictionRequest(Request):
    """Lesions to predict."""

    confidence: Annotated[float, Field(strict=True, ge=LOWEST_CONFIDENCE, le=HIGHEST_CONFIDENCE)] = DEFAULT_CONFIDENCE
    """Of the uncertain band."""


class EmbeddingRequest(Request):
    """Lesions whose hidden states are wanted."""

    pooling: Pooling = "last"


class Predictions(Record):
    """One a lesion, in the order of the request."""

    predictions: list[Prediction]


class Embeddings(Record):
    """The language model's last hidden states, [lesions × hidden size], in the order of the request."""

    embeddings: list[list[float]]


class ServedModel(Record):
    """A model that the server answers for."""

    identity: ModelIdentity
    features: list[str]
    """What it reads, by PyRadiomics' names; no other value is needed."""
    descriptors: list[str]
    """Descriptors that it reads besides."""
    settings_name: str | None
    """None for a model that reads descriptors only."""
    settings: dict[str, Any] | None
    """How the features have to be extracted, as `Settings.from_dict` reads it."""
    card: dict[str, Any]
    """The whole ``model.json``."""


class ServedModels(Record):
    """Every model of a server."""

    models: list[ServedModel]


class ServerVersion(Record):
    """What a server speaks."""

    protocol: int
    oldest_protocol: int
    radllm: str
    engine: Literal["radllm", "vllm"]


class Health(Record):
    """The process answers; it says nothing about models."""

    status: Literal["alive"] = "alive"


class Readiness(Record):
    """Every model was loaded and has scored once."""

    status: Literal["ready"] = "ready"


class Ready(Record):
    """What ``radllm serve`` prints, on one line, once it can answer."""

    url: str
    """``http://127.0.0.1:PORT``, ``https://HOST:PORT`` or ``unix:PATH``."""
    token_file: str | None
    """None where the token came from the environment."""
    pid: int
    protocol: int
    radllm: str
    models: list[str]


class Problem(Record):
    """Why there is no answer: a stable code and one sentence."""

    code: Code
    message: str


def sent_lesion(features: Features, names: list[str] | None = None) -> SentLesion:
    """What is sent of a lesion.

    Args:
        names: the features that the model reads: no others are sent. None for all of them.

    Raises:
        RadllmError: something about it may not be sent, such as an unknown feature or a value that is no measurement.
    """
    wanted = features.values.keys() if names is None else set(names)
    values = {name: value for name, value in features.values.items() if name in wanted}
    content = {**features.model_dump(), "values": values}
    try:
        return SentLesion.model_validate(content)
    except ValidationError as error:
        where, reason = first_fault(error)
        raise RadllmError(f"This lesion cannot be sent to a server ({where}: {reason}): extract it anew.") from error


def first_fault(error: ValidationError | Sequence[ErrorDetails]) -> tuple[str, str]:
    """Where content is wrong, as ``lesions.0.values``, and how, in words. Neither repeats anything of a lesion."""
    fault = (error.errors(include_input=False) if isinstance(error, ValidationError) else error)[0]
    place = []
    for part in map(str, fault["loc"]):
        if not re.fullmatch(r"[A-Za-z0-9_]{1,40}", part):
            break
        place.append(part)
        if part in _WITH_NAMES_OF_THEIR_OWN:
            break
    reason = str(fault["msg"]).removeprefix("Value error, ")
    return ".".join(place) or "its beginning", reason[:1].lower() + reason[1:]


def refused_protocol(client: int) -> str:
    """What a server says to a client of a version that it does not speak; empty where it does."""
    if client > PROTOCOL:
        return (
            f"This client speaks version {client} of the protocol and the server {_ours()}: update the server's radllm."
        )
    if client < OLDEST_PROTOCOL:
        return (
            f"This client speaks version {client} of the protocol and the server {_ours()}: update the client's radllm."
        )
    return ""


def common_protocol(server: ServerVersion) -> int:
    """The newest version that this client and a server both speak.

    Raises:
        RadllmError: there is none, with the side that has to be updated.
    """
    if server.protocol < OLDEST_PROTOCOL:
        older = "server"
    elif server.oldest_protocol > PROTOCOL:
        older = "client"
    else:
        return min(PROTOCOL, server.protocol)
    raise RadllmError(
        f"This client speaks {_ours()} of the protocol and the server {server.oldest_protocol} to {server.protocol} "
        f"(radllm {server.radllm[:20]}): update the {older}'s radllm."
    )


def _ours() -> str:
    return f"version {PROTOCOL}" if PROTOCOL == OLDEST_PROTOCOL else f"versions {OLDEST_PROTOCOL} to {PROTOCOL}"
