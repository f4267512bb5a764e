"""The server's calls for Python: the same methods and the same numbers as `Model`, from another process or machine.

Needs pydantic and numpy, nothing else: it runs in Slicer's own Python.
"""

from __future__ import annotations

import contextlib
import http.client
import socket
import threading
import time
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, TypeVar

import numpy as np
from numpy.typing import NDArray
from pydantic import BaseModel, ValidationError

from radllm_backend.errors import RadllmError
from radllm_backend.language.prompt import Pooling
from radllm_backend.models.conformal import DEFAULT_CONFIDENCE
from radllm_backend.models.prediction import ModelIdentity, Prediction
from radllm_backend.records import Features, Progress
from radllm_backend.server import protocol
from radllm_backend.server.connection import Address

if TYPE_CHECKING:
    from radllm_backend.features.extraction_settings import Settings

Answer = TypeVar("Answer", bound=BaseModel)
_OfOne = TypeVar("_OfOne")
"""What is answered of one lesion."""
_LARGEST_ANSWER = 256 * 2**20
_PART_SECONDS = 2.0  # how long a part of a long call should take: progress, and what a cancelled call still costs


class ServerError(RadllmError):
    """A call that the server did not answer. `code` says why, for programs."""

    def __init__(self, code: str, message: str) -> None:
        """
        Args:
            code: of the server's `protocol.Problem`; ``unreachable`` or ``cancelled`` where there was none.
            message: one sentence.
        """
        super().__init__(message)
        self.code = code


class Client:
    """A connection to one server, for any number of threads. Lazy: the first call connects."""

    def __init__(
        self,
        url: str,
        *,
        token: str | None = None,
        token_file: str | Path | None = None,
        certificate: str | Path | None = None,
        allow_unencrypted: bool = False,
        timeout: float = 600,
        patience: float = 60,
    ) -> None:
        """
        Args:
            url: ``http://127.0.0.1:PORT``, ``https://HOST:PORT`` or ``unix:PATH``.
            token: of this start of the server.
            token_file: the file that holds it, read anew when the server was started anew.
            certificate: of the server or its authority, where the system does not know it.
            allow_unencrypted: send token and features over http to another machine.
            timeout: seconds that one answer may take.
            patience: seconds to go on trying while the server says that it is loading or busy.

        Raises:
            RadllmError: the address is none, or another machine's without encryption.
        """
        self._address = Address.parse(url)
        if not (self._address.is_private or allow_unencrypted):
            raise RadllmError(
                f"{url[:80]} is another machine without encryption, where others could read the token: use https."
            )
        self._token, self._token_file = token, Path(token_file) if token_file else None
        self._timeout, self._patience = timeout, patience
        self._tls = self._address.tls(certificate)
        self._threads = threading.local()
        self._open: set[http.client.HTTPConnection] = set()
        self._lock = threading.Lock()
        self._cancelled = 0
        self._version: protocol.ServerVersion | None = None

    # ------------------------------------------------------------------------------------------------------- calls

    def alive(self) -> bool:
        """Whether a server answers there, with whatever token."""
        try:
            return self._call("GET", "/health", protocol.Health).status == "alive"
        except RadllmError:
            return False

    def version(self) -> protocol.ServerVersion:
        """What the server speaks, asked for once.

        Raises:
            RadllmError: it speaks no version that this client does, with the side that has to be updated.
        """
        if self._version is None:
            version = self._call("GET", "/version", protocol.ServerVersion)
            protocol.common_protocol(version)
            self._version = version
        return self._version

    def wait_until_ready(self) -> None:
        """Return once every model is loaded; ServerError where that takes longer than the client's patience."""
        self._ask("GET", "/ready", protocol.Readiness)

    def models(self) -> list[RemoteModel]:
        """The models that the server answers for."""
        return [RemoteModel(self, served) for served in self._ask("GET", "/models", protocol.ServedModels).models]

    def model(self, name: str) -> RemoteModel:
        """A model by its name; RadllmError where the server has none of that name."""
        models = {model.name: model for model in self.models()}
        if name not in models:
            raise RadllmError(
                f"The server at {self._address.text} has no model {name[:64]}: ask for {', '.join(models) or 'none'}."
            )
        return models[name]

    def cancel(self) -> None:
        """End all calls that are under way, from another thread: they raise a ServerError of the code ``cancelled``."""
        with self._lock:
            self._cancelled += 1
            for connection in self._open:
                with contextlib.suppress(OSError, AttributeError):
                    connection.sock.shutdown(socket.SHUT_RDWR)

    def close(self) -> None:
        """Close every connection; a later call opens a new one."""
        self.cancel()
        with self._lock:
            for connection in self._open:
                connection.close()
            self._open.clear()
        self._threads = threading.local()

    # ----------------------------------------------------------------------------------------------------- the wire

    def _ask(self, method: str, path: str, answer: type[Answer], content: BaseModel | None = None) -> Answer:
        """A call after the handshake."""
        self.version()
        return self._call(method, path, answer, content)

    def _call(self, method: str, path: str, answer: type[Answer], content: BaseModel | None = None) -> Answer:
        """One call, again while the server is loading or busy, and once again with a new token."""
        body = content.model_dump_json().encode() if content is not None else None
        begun, until, token = self._cancelled, time.monotonic() + self._patience, self._read_token()
        while True:
            status, headers, text = self._exchange(method, path, body, token, begun)
            if status == 200:
                return self._parse(answer, text)
            problem = self._problem(status, text)
            wait = _seconds(headers.get("Retry-After"))
            newer = self._read_token()
            if status == 401 and newer != token:
                token = newer
            elif status == 503 and problem.code in ("busy", "loading") and time.monotonic() + wait < until:
                self._pause(wait, begun)
            else:
                raise ServerError(problem.code, problem.message)

    def _exchange(
        self, method: str, path: str, body: bytes | None, token: str | None, begun: int
    ) -> tuple[int, http.client.HTTPMessage, bytes]:
        """Send and receive. A connection that the server closed while it was idle is opened again, once."""
        headers = {protocol.PROTOCOL_HEADER: str(self._speaks()), "Accept": "application/json"}
        if token:
            headers["Authorization"] = f"Bearer {token}"
        if body is not None:
            headers["Content-Type"] = "application/json"
        while True:
            self._refuse_cancelled(begun)
            connection = self._connection()
            used = connection.sock is not None
            try:
                self._address.connect(connection, self._timeout)
                connection.request(method, path, body, headers)
                response = connection.getresponse()
                return response.status, response.headers, _whole(response)
            except (OSError, http.client.HTTPException) as error:
                self._drop(connection)
                self._refuse_cancelled(begun)
                if not used or isinstance(error, TimeoutError):
                    raise ServerError("unreachable", self._unreachable(error)) from error

    def _connection(self) -> http.client.HTTPConnection:
        connection: http.client.HTTPConnection | None = getattr(self._threads, "connection", None)
        if connection is None:
            connection = self._threads.connection = self._address.connection(self._tls)
            with self._lock:
                self._open.add(connection)
        return connection

    def _drop(self, connection: http.client.HTTPConnection) -> None:
        connection.close()
        with self._lock:
            self._open.discard(connection)
        self._threads.connection = None

    def _pause(self, seconds: float, begun: int) -> None:
        until = time.monotonic() + seconds
        while (left := until - time.monotonic()) > 0:
            time.sleep(min(left, 0.2))
            self._refuse_cancelled(begun)

    def _refuse_cancelled(self, begun: int) -> None:
        if self._cancelled != begun:
            raise ServerError("cancelled", "The call was cancelled.")

    def _speaks(self) -> int:
        return protocol.common_protocol(self._version) if self._version is not None else protocol.PROTOCOL

    def _read_token(self) -> str | None:
        if self._token is not None or self._token_file is None:
            return self._token
        try:
            return self._token_file.read_text(encoding="utf-8").strip()
        except (OSError, UnicodeDecodeError) as error:
            raise ServerError(
                "unreachable", f"The token file {self._token_file} cannot be read: check that the server runs."
            ) from error

    def _parse(self, answer: type[Answer], text: bytes) -> Answer:
        try:
            return answer.model_validate_json(text)
        except ValidationError as error:
            raise ServerError("unreachable", self._strange()) from error

    def _problem(self, status: int, text: bytes) -> protocol.Problem:
        try:
            return protocol.Problem.model_validate_json(text)
        except ValidationError as error:
            raise ServerError("unreachable", f"{self._strange()[:-1]} (status {status}).") from error

    def _strange(self) -> str:
        return f"What answers at {self._address.text} is no radllm server of this version: check the address."

    def _unreachable(self, error: Exception) -> str:
        reason = "no answer in time" if isinstance(error, TimeoutError) else _reason(error)
        return f"The server at {self._address.text} does not answer ({reason}): check that it runs, or start it again."


class RemoteModel:
    """A model of a server, with the methods of `Model`."""

    def __init__(self, client: Client, served: protocol.ServedModel) -> None:
        """`Client.model` is the usual way."""
        self._client = client
        self.served = served

    @property
    def name(self) -> str:
        return self.served.identity.name

    @property
    def sha256(self) -> str:
        return self.served.identity.sha256

    @property
    def identity(self) -> ModelIdentity:
        return self.served.identity

    @property
    def settings(self) -> Settings:
        """How a lesion's features have to be extracted, here; RadllmError for a model that reads descriptors only."""
        from radllm_backend.features.extraction_settings import Settings

        if self.served.settings is None or self.served.settings_name is None:
            raise RadllmError(f"The model {self.name} reads descriptors and no features of an image.")
        return Settings.from_dict(self.served.settings, self.served.settings_name)

    def warm_up(self) -> None:
        """As `Model.warm_up`: the server has done it."""

    def sent(self, features: Features) -> protocol.SentLesion:
        """All that is sent of a lesion: the features that the model reads, and their provenance."""
        return protocol.sent_lesion(features, self.served.features)

    def predict(
        self, features: Features, *, explain: bool = True, confidence: float = DEFAULT_CONFIDENCE
    ) -> Prediction:
        """As `Model.predict`: the prediction of one lesion, with its reasons unless ``explain=False``."""
        return self.predict_many([features], explain=explain, confidence=confidence)[0]

    def predict_many(
        self,
        lesions: Sequence[Features],
        *,
        explain: bool = True,
        progress: Progress | None = None,
        confidence: float = DEFAULT_CONFIDENCE,
    ) -> list[Prediction]:
        """As `Model.predict_many`, sent in parts of about two seconds' work.

        Args:
            explain: give the reasons too; without them (``explain=False``) a prediction costs 4 to 20 times less.
            progress: told after each part; an exception that it raises ends the call.

        Raises:
            RadllmError: a lesion cannot be sent or scored.
            ServerError: there is no answer, for another reason (a RadllmError too).
        """
        path = "/explain" if explain else "/predict"

        def ask(part: list[protocol.SentLesion]) -> list[Prediction]:
            asked = self._request(protocol.PredictionRequest, part, confidence=confidence)
            return self._client._ask("POST", path, protocol.Predictions, asked).predictions

        return self._in_parts(lesions, ask, progress)

    def embed(self, lesions: Sequence[Features], pooling: Pooling = "last") -> NDArray[np.float32]:
        """As `Model.embed`: the enhanced features, [lesions × hidden size]."""

        def ask(part: list[protocol.SentLesion]) -> list[list[float]]:
            asked = self._request(protocol.EmbeddingRequest, part, pooling=pooling)
            return self._client._ask("POST", "/embed", protocol.Embeddings, asked).embeddings

        return np.array(self._in_parts(lesions, ask, None), dtype=np.float32)

    def _request(self, kind: type[Answer], part: list[protocol.SentLesion], **more: object) -> Answer:
        try:
            return kind(model=self.name, sha256=self.sha256, lesions=part, **more)
        except ValidationError as error:
            where, reason = protocol.first_fault(error)
            raise RadllmError(f"The server cannot be asked this ({where}: {reason}).") from error

    def _in_parts(
        self,
        lesions: Sequence[Features],
        ask: Callable[[list[protocol.SentLesion]], list[_OfOne]],
        progress: Progress | None,
    ) -> list[_OfOne]:
        begun = self._client._cancelled
        sent = [self.sent(features) for features in lesions]
        answers: list[_OfOne] = []
        size = 4
        while len(answers) < len(sent):
            self._client._refuse_cancelled(begun)
            started = time.monotonic()
            part = sent[len(answers) : len(answers) + size]
            found = ask(part)
            if len(found) != len(part):
                raise ServerError("unreachable", f"The server answered {len(found)} of {len(part)} lesions.")
            answers += found
            if progress:
                progress("Predicting", len(answers) / len(sent))
            faster = _PART_SECONDS / max(time.monotonic() - started, 1e-3)
            size = max(1, min(protocol.MOST_LESIONS, int(size * min(max(faster, 0.25), 4))))
        return answers


def _whole(response: http.client.HTTPResponse) -> bytes:
    """An answer's body; IncompleteRead where the server was gone before its end, or the answer is far too large."""
    text = response.read(_LARGEST_ANSWER)
    if response.length:
        raise http.client.IncompleteRead(text, response.length)
    return text


def _seconds(retry_after: str | None) -> float:
    try:
        return min(max(float(retry_after or 1), 0.1), 60)
    except ValueError:
        return 1


def _reason(error: Exception) -> str:
    words = error.strerror if isinstance(error, OSError) and error.strerror else str(error)
    return " ".join(str(words).split())[:100] or type(error).__name__
