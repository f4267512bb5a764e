"""The calls of the server, each as small as it can be: what is asked goes to the queue, what comes back is sent."""

from __future__ import annotations

import asyncio
import json
from collections.abc import Callable, Coroutine, Sequence
from contextlib import AbstractAsyncContextManager
from dataclasses import dataclass
from typing import Annotated, Any

from fastapi import APIRouter, Body, Depends, FastAPI, Header, Request, Response
from fastapi.exceptions import RequestValidationError
from fastapi.routing import APIRoute
from fastapi.security import HTTPBearer
from starlette.exceptions import HTTPException
from starlette.types import ASGIApp

from radllm_backend import __version__
from radllm_backend.errors import RadllmError
from radllm_backend.server import protocol
from radllm_backend.server.journal import Journal, Recorder, note
from radllm_backend.server.models import ModelStore, ModelUnavailableError
from radllm_backend.server.queue import MicroBatches, Question, QueueFullError
from radllm_backend.server.trust import Gate, RefusedRequest, Trust, http_problem, problem_response

_JSON = "application/json"
_Answers = dict[int | str, dict[str, Any]]  # as FastAPI wants them described
_PROBLEMS: _Answers = {
    status: {"model": protocol.Problem, "description": description}
    for status, description in {
        400: "Not a sound HTTP request.",
        401: "The token is missing or wrong.",
        403: "Another Host header than the server's names, or a web page's request.",
        409: "Another version of the protocol, or another model than the one that was asked for.",
        500: "A mistake of the server's, noted in its log.",
    }.items()
}
_ASKING_PROBLEMS: _Answers = {
    status: {"model": protocol.Problem, "description": description}
    for status, description in {
        404: "The server has no model of that name.",
        413: "The request is too large.",
        422: "The request is malformed, or a lesion cannot be scored.",
        503: "Loading, full, or stopping: try again after the seconds in Retry-After.",
    }.items()
}


@dataclass
class State:
    """What the calls need."""

    models: ModelStore
    batches: MicroBatches
    journal: Journal
    engine: str
    log_values: bool = False
    ready: bool = False
    stopping: bool = False


class _StrictRequest(Request):
    """Its JSON names nothing twice, nests no deeper than any request does, and has finite numbers only."""

    async def json(self) -> Any:
        try:
            return json.loads(await self.body(), object_pairs_hook=_unique, parse_constant=_refuse_constant)
        except (ValueError, RecursionError) as error:
            reason = str(error) if isinstance(error, _JsonError) else "it cannot be parsed"
            raise RefusedRequest(422, "malformed", f"The request's body is no sound JSON: {reason}.") from None


class _JsonError(ValueError):
    """JSON that means two things, or nothing."""


def _unique(pairs: list[tuple[str, Any]]) -> dict[str, Any]:
    content = dict(pairs)
    if len(content) != len(pairs):
        raise _JsonError("a name occurs twice")
    return content


def _refuse_constant(name: str) -> float:
    raise _JsonError("NaN and Infinity are no numbers")


class _StrictRoute(APIRoute):
    def get_route_handler(self) -> Callable[[Request], Coroutine[Any, Any, Response]]:
        handle = super().get_route_handler()

        async def strictly(request: Request) -> Response:
            return await handle(_StrictRequest(request.scope, request.receive))

        return strictly


def _speaks_ours(
    version: Annotated[int, Header(alias=protocol.PROTOCOL_HEADER, description="What the client speaks.", ge=0)] = (
        protocol.PROTOCOL
    ),
) -> None:
    if refused := protocol.refused_protocol(version):
        raise RefusedRequest(409, "other-version", refused)


class _Calls:
    """The calls, with what they need."""

    def __init__(self, state: State) -> None:
        self._state = state

    def router(self) -> APIRouter:
        guarded = [Depends(HTTPBearer(auto_error=False)), Depends(_speaks_ours)]
        router = APIRouter(route_class=_StrictRoute, responses=_PROBLEMS)
        plain: _Answers = {422: {"model": protocol.Problem, "description": "A malformed header."}}
        router.get("/health", response_model=protocol.Health)(self.health)
        router.get(
            "/ready",
            response_model=protocol.Readiness,
            dependencies=guarded,
            responses={**plain, 503: _ASKING_PROBLEMS[503]},
        )(self.ready)
        router.get("/version", response_model=protocol.ServerVersion, dependencies=guarded[:1])(self.version)
        router.get("/models", response_model=protocol.ServedModels, dependencies=guarded, responses=plain)(self.models)
        text: _Answers = {200: {"content": {"text/plain": {}}, "description": "Prometheus' text format."}}
        router.get("/metrics", response_class=Response, dependencies=guarded[:1], responses=text)(self.metrics)
        for path, call, answer in (
            ("/predict", self.predict, protocol.Predictions),
            ("/explain", self.explain, protocol.Predictions),
            ("/embed", self.embed, protocol.Embeddings),
        ):
            router.post(path, response_model=answer, dependencies=guarded, responses=_ASKING_PROBLEMS)(call)
        return router

    async def health(self) -> protocol.Health:
        """Whether the process answers. Needs no token."""
        return protocol.Health()

    async def ready(self) -> protocol.Readiness:
        """Whether every model was loaded and has scored once."""
        self._refuse_unless_ready()
        return protocol.Readiness()

    async def version(self) -> protocol.ServerVersion:
        """What the server speaks: asked for by a client before anything else."""
        return protocol.ServerVersion(
            protocol=protocol.PROTOCOL,
            oldest_protocol=protocol.OLDEST_PROTOCOL,
            radllm=__version__,
            engine=self._state.engine,
        )

    async def models(self) -> protocol.ServedModels:
        """The models, with their cards and hashes."""
        return protocol.ServedModels(models=self._state.models.describe())

    async def metrics(self) -> Response:
        """Counts and times for Prometheus."""
        return Response(self._state.journal.metrics(), media_type="text/plain; version=0.0.4")

    async def predict(self, request: Request, asked: Annotated[protocol.PredictionRequest, Body()]) -> Response:
        """The prediction of each lesion."""
        question = Question("predict", asked.model, asked.confidence)
        return _listed("predictions", await self._answers(request, question, asked))

    async def explain(self, request: Request, asked: Annotated[protocol.PredictionRequest, Body()]) -> Response:
        """The prediction of each lesion with each feature's effect: several times as expensive."""
        question = Question("explain", asked.model, asked.confidence)
        return _listed("predictions", await self._answers(request, question, asked))

    async def embed(self, request: Request, asked: Annotated[protocol.EmbeddingRequest, Body()]) -> Response:
        """The language model's hidden states: the enhanced features of each lesion."""
        question = Question("embed", asked.model, pooling=asked.pooling)
        return _listed("embeddings", await self._answers(request, question, asked))

    async def _answers(self, request: Request, question: Question, asked: protocol.Request) -> list[bytes]:
        """The answers, or a `RefusedRequest`; nothing more is scored once the client has gone."""
        self._refuse_unless_ready()
        self._refuse_unless_known(asked)
        if self._state.log_values:
            note("lesions", model=asked.model, lesions=[lesion.model_dump(mode="json") for lesion in asked.lesions])
        scoring = asyncio.ensure_future(self._state.batches.answers(question, asked.lesions))
        gone = asyncio.ensure_future(_disconnection(request))
        try:
            await asyncio.wait({scoring, gone}, return_when=asyncio.FIRST_COMPLETED)
            return await scoring if scoring.done() else []
        except QueueFullError as error:
            raise _later("busy", "The server has too much to do", error.retry_after) from None
        except ModelUnavailableError as error:
            note("model unavailable", error=error, id=request.state.number)
            sentence = f"The model {asked.model} cannot be loaded any more, and the server's log says why"
            raise _later("unavailable", sentence, 30) from None
        except RadllmError as error:
            raise RefusedRequest(422, "unusable", str(error)) from None
        finally:
            scoring.cancel()
            gone.cancel()

    def _refuse_unless_ready(self) -> None:
        if self._state.stopping:
            raise _later("stopping", "The server is stopping", 5)
        if not self._state.ready:
            raise _later("loading", "The server is loading its models", 1)

    def _refuse_unless_known(self, asked: protocol.Request) -> None:
        models = self._state.models
        if asked.model not in models.names:
            known = ", ".join(models.names)
            raise RefusedRequest(
                404, "unknown-model", f"This server has no model {asked.model}: ask for one of {known}."
            )
        if asked.sha256 is not None and asked.sha256 != models.sha256(asked.model):
            sentence = (
                f"The server's model {asked.model} is another one than the one asked for: ask for its models anew."
            )
            raise RefusedRequest(409, "other-model", sentence)


async def _disconnection(request: Request) -> None:
    while (await request.receive())["type"] != "http.disconnect":
        pass


def _later(code: protocol.Code, why: str, seconds: int) -> RefusedRequest:
    return RefusedRequest(503, code, f"{why}: try again in {seconds} s.", {"Retry-After": str(seconds)})


def _listed(name: str, answers: Sequence[bytes]) -> Response:
    """The answers, which are JSON already, as one JSON object."""
    return Response(b'{"%s":[%s]}' % (name.encode(), b",".join(answers)), media_type=_JSON)


async def _malformed(request: Request, error: Exception) -> Response:
    assert isinstance(error, RequestValidationError)
    place, reason = protocol.first_fault(error.errors())
    return problem_response(422, "malformed", f"The request is malformed ({place}: {reason}).")


async def _refused(request: Request, error: Exception) -> Response:
    assert isinstance(error, HTTPException)
    return http_problem(error)


async def _mistaken(request: Request, error: Exception) -> Response:
    number = request.state.number
    note("mistake", error=error, id=number)
    return problem_response(500, "internal", f"The server made a mistake, which its log has under {number}.")


Lifespan = Callable[[FastAPI], AbstractAsyncContextManager[None]]


def create_app(state: State, trust: Trust, lifespan: Lifespan) -> ASGIApp:
    """The ASGI application: recorder, gate and calls, from the outside in.

    Args:
        lifespan: what runs beside the calls, from start to stop.
    """
    app = FastAPI(
        title="radllm",
        version=__version__,
        description="Predictions from the radiomics features of lesions. For research use only. Not for diagnosis.",
        docs_url=None,  # its page would load scripts from the network
        redoc_url=None,
        openapi_url=None,
        lifespan=lifespan,
        exception_handlers={
            RequestValidationError: _malformed,
            HTTPException: _refused,
            Exception: _mistaken,
        },
    )
    calls = _Calls(state)
    app.include_router(calls.router())
    page = json.dumps(_page(app, state.models)).encode()

    @app.get("/openapi.json", include_in_schema=False)
    async def openapi() -> Response:
        return Response(page, media_type=_JSON)

    return Recorder(Gate(app, trust), state.journal)


def _page(app: FastAPI, models: ModelStore) -> dict[str, Any]:
    """The OpenAPI page, with the models' names and an example that works."""
    page = app.openapi()
    example = {"model": models.names[0], "lesions": [models.sample(models.names[0]).model_dump(mode="json")]}
    for name in ("PredictionRequest", "EmbeddingRequest"):
        schema = page["components"]["schemas"][name]
        schema["properties"]["model"] = {"enum": models.names, "type": "string", "title": "Model"}
        schema["examples"] = [example]
    for path in ("/predict", "/explain", "/embed"):
        page["paths"][path]["post"]["requestBody"]["content"][_JSON]["example"] = example
    return page
