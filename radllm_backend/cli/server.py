"""The commands ``radllm serve`` and ``radllm export``."""

from __future__ import annotations

import contextlib
import sys
from importlib.util import find_spec
from pathlib import Path
from typing import Annotated, Literal

import typer

from radllm_backend.errors import RadllmError

_PACKAGES = ("fastapi", "uvicorn", "prometheus_client", "psutil")
_INSTALL = "pip install 'radllm-backend[server]'"


def register(app: typer.Typer) -> None:
    """Add these commands to the ``radllm`` command."""
    app.command()(serve)
    app.command()(export)


def serve(
    model: Annotated[list[str], typer.Option(help="A shipped model's name or a trained one's folder; give it again.")],
    base_model: Annotated[str | None, typer.Option(help="Base model: a name, a pulled hub name or a folder.")] = None,
    host: Annotated[str, typer.Option(help="Address to listen on.")] = "127.0.0.1",
    port: Annotated[int, typer.Option(help="0: a free one.", min=0, max=65535)] = 0,
    uds: Annotated[Path | None, typer.Option(help="Listen on this Unix socket instead.")] = None,
    allow_host: Annotated[list[str] | None, typer.Option(help="Another name that clients call this server by.")] = None,
    tls_certificate: Annotated[Path | None, typer.Option(help="PEM file, for another host than this one.")] = None,
    tls_key: Annotated[Path | None, typer.Option(help="PEM file.")] = None,
    allow_unencrypted: Annotated[
        bool,
        typer.Option(
            "--allow-unencrypted",
            help="Serve a network without TLS: whoever can listen in reads the token and the feature values.",
        ),
    ] = False,
    token_file: Annotated[
        Path | None, typer.Option(help="Where the token is written; RADLLM_TOKEN sets a token and writes none.")
    ] = None,
    parent_pid: Annotated[int | None, typer.Option(help="Stop when this process is gone.")] = None,
    memory: Annotated[float | None, typer.Option(help="Gigabytes for all models together.", min=0.001)] = None,
    queue: Annotated[int, typer.Option(help="Lesions that may wait.", min=1)] = 4096,
    batch: Annotated[int, typer.Option(help="Lesions scored together at most; 1: no micro-batches.", min=1)] = 64,
    remember: Annotated[int, typer.Option(help="Answers kept for lesions that come again.", min=0)] = 2048,
    request_seconds: Annotated[float, typer.Option(help="In which a request has to arrive.", min=0.1)] = 20,
    log_values: Annotated[bool, typer.Option("--log-values", help="Write every lesion's values to the log.")] = False,
    engine: Annotated[Literal["radllm", "vllm"], typer.Option(help="What computes the scores.")] = "radllm",
    url: Annotated[str | None, typer.Option(help="Of the vLLM server that serves what radllm export wrote.")] = None,
) -> None:
    """Serve models on a local socket. Prints one line of JSON when it is ready; the log goes to standard error."""
    missing = [name for name in _PACKAGES if find_spec(name) is None]
    if missing:
        raise RadllmError(f"The server needs {', '.join(missing)}: {_INSTALL}.")
    if (engine == "vllm") != (url is not None):
        raise RadllmError("The engine vllm and --url go together: give both, or neither.")
    from radllm_backend.server.process import ServerOptions
    from radllm_backend.server.process import serve as serve_models

    options = ServerOptions(
        models=model,
        base=base_model,
        host=host,
        port=port,
        uds=uds,
        allowed_hosts=allow_host or (),
        tls_certificate=tls_certificate,
        tls_key=tls_key,
        allow_unencrypted=allow_unencrypted,
        token_file=token_file,
        parent_pid=parent_pid,
        memory=round(memory * 1e9) if memory is not None else None,
        most_waiting=queue,
        most_together=batch,
        remembered=remember,
        request_seconds=request_seconds,
        log_values=log_values,
        vllm_url=url,
    )
    with contextlib.suppress(BrokenPipeError):
        serve_models(options, lambda ready: _say(ready.model_dump_json()))


def export(
    model: Annotated[str, typer.Argument(help="A shipped model's name or the folder of a trained one.")],
    output: Annotated[Path, typer.Option("--output", "-o", help="A new folder.")],
    base_model: Annotated[str | None, typer.Option(help="Base model: a name, a pulled hub name or a folder.")] = None,
) -> None:
    """Write a model's merged weights for a vLLM server."""
    from radllm_backend.cli.support import check_output_folder
    from radllm_backend.models.bundle import read_bundle
    from radllm_backend.models.export import export as export_model

    check_output_folder(output)
    name = export_model(read_bundle(model), output, base_model)
    typer.echo(
        f"{output} is ready. On the machine with vLLM:\n"
        f"  vllm serve {output} --runner pooling --dtype float32 --served-model-name {name}\n"
        f"Here:\n  radllm serve --model {model} --engine vllm --url http://HOST:8000"
    )


def _say(line: str) -> None:
    """On standard output, at once; a reader that has gone does not matter."""
    with contextlib.suppress(OSError):
        sys.stdout.write(line + "\n")
        sys.stdout.flush()
