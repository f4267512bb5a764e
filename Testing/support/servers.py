"""What the tests of the server share: real servers in processes of their own, lesions, and requests written by hand."""

from __future__ import annotations

import http.client
import json
import os
import random
import socket
from pathlib import Path
from typing import Any

from radllm_backend.models.bundle import read_bundle
from radllm_backend.records import Extraction, Features, Geometry
from radllm_backend.server.local import LocalServer

ENVIRONMENT = {"OMP_NUM_THREADS": "1"}


def start(model: Path | str, base: Path | None, cache: Path, *arguments: object, **environment: str) -> LocalServer:
    """``radllm serve`` in a process of its own, ready."""
    given = ["--model", str(model), *(["--base-model", str(base)] if base else []), *map(str, arguments)]
    variables = {**os.environ, **ENVIRONMENT, "RADLLM_CACHE": str(cache), "XDG_RUNTIME_DIR": str(cache), **environment}
    return LocalServer.start(given, environment=variables, timeout=400)


def lesions(model: Path | str, count: int, seed: int = 0) -> list[Features]:
    """Lesions around a model's training lesions, each another one, as `extract` gives them."""
    chance = random.Random(seed)
    card = read_bundle(model).card
    assert card.settings_name
    settings = card.extraction_settings()
    assert settings
    return [
        Features(
            values={row.feature: row.mean + chance.gauss(0, 1) * row.deviation for row in card.features}
            | {"original_firstorder_Energy": chance.random()},
            extraction=Extraction(
                preset=card.settings_name,
                settings_sha256=settings.sha256,
                versions={"radllm_backend": "0.1.0", "SimpleITK": "2.5.7"},
                modality=card.modality,
                geometry=Geometry(
                    size=(200, 160),
                    spacing=(0.1, 0.1),
                    spacing_known=True,
                    bounding_box=(10, 12, 60, 50),
                    voxels=1500,
                    touches_border=False,
                ),
                image_sha256=f"{seed:032x}{number:032x}",
                mask_sha256="0" * 64,
            ),
        )
        for number in range(count)
    ]


def token_of(server: LocalServer) -> str:
    assert server.ready.token_file
    return Path(server.ready.token_file).read_text().strip()


def port_of(server: LocalServer) -> int:
    return int(server.ready.url.rpartition(":")[2])


def headers_of(server: LocalServer, **others: str) -> dict[str, str]:
    """With the right token; underscores in a name are hyphens, and an empty value takes a header away."""
    given = {"Authorization": f"Bearer {token_of(server)}", "Content-Type": "application/json"}
    given |= {name.replace("_", "-"): value for name, value in others.items()}
    return {name: value for name, value in given.items() if value}


def ask(
    server: LocalServer, method: str, path: str, body: Any = None, headers: dict[str, str] | None = None
) -> tuple[int, Any, http.client.HTTPMessage]:
    """One request on a connection of its own: the status, the answer's JSON or text, its headers."""
    connection = http.client.HTTPConnection("127.0.0.1", port_of(server), timeout=60)
    content = body if isinstance(body, bytes | None) else json.dumps(body).encode()
    try:
        connection.request(method, path, content, headers_of(server) if headers is None else headers)
        response = connection.getresponse()
        text = response.read()
    finally:
        connection.close()
    kind = response.headers.get("Content-Type", "")
    return response.status, json.loads(text) if kind == "application/json" else text.decode(), response.headers


def raw(port: int, content: bytes, *, seconds: float = 30) -> bytes:
    """Send bytes as they are, and read until the server closes the connection or says no more."""
    with socket.create_connection(("127.0.0.1", port), timeout=seconds) as connection:
        connection.sendall(content)
        received = b""
        try:
            while part := connection.recv(65536):
                received += part
        except (TimeoutError, ConnectionResetError):
            pass
    return received


def body_of(features: list[Features], model: str = "tiny") -> dict[str, Any]:
    """A good request."""
    return {"model": model, "lesions": [lesion.model_dump(mode="json") for lesion in features]}
