"""What micro-batches bring: requests a second of many clients at once against one request at a time, as a ratio.

    python -m benchmarks.server_throughput --model breast-us --clients 64 --requests 50

Two servers run side by side, one that scores each lesion by itself and remembers nothing (``--batch 1 --remember 0``),
and one as it is shipped. They are asked in turn, `--rounds` times, on three loads:

* *different*: every request has another lesion. Here only scoring together, and doing the rest meanwhile, can help;
  on a CPU a batch saves what its prompts begin with in common.
* *mixed*: each request has one of as many lesions as an eighth of the requests, at random, as in
  `Testing/server/test_load.py`.
* *shared*: all clients have the same lesions, as in a course. Each is scored once.

Prints the medians, and the ratios with their range; ``--json FILE`` writes them too.
"""

from __future__ import annotations

import argparse
import http.client
import json
import os
import random
import statistics
import sys
import tempfile
import threading
import time
from pathlib import Path

from radllm_backend.server.local import LocalServer
from Testing.support.servers import body_of, headers_of, lesions, port_of, start

LOADS = ("different", "mixed", "shared")
_ASKED = 8
"""How often a lesion of the mixed load is asked for, on average."""


def main() -> None:
    given = arguments()
    base = Path(given.base_model) if given.base_model else None
    cache = Path(os.environ.get("RADLLM_CACHE", "")) if os.environ.get("RADLLM_CACHE") else None
    results: dict[str, list[dict[str, float]]] = {load: [] for load in LOADS}
    with tempfile.TemporaryDirectory() as folder:
        environment = {"XDG_RUNTIME_DIR": folder, "OMP_NUM_THREADS": str(given.threads)}
        cache = cache or default_cache()
        with (
            start(given.model, base, cache, "--batch", 1, "--remember", 0, **environment) as plain,
            start(given.model, base, cache, **environment) as batched,
        ):
            name = batched.ready.models[0]
            for number in range(given.rounds):
                for load, rates in results.items():
                    rates.append(one_round(given, name, load, number, plain, batched))
                    print(f"round {number + 1}, {load}: {rates[-1]}", file=sys.stderr, flush=True)
    report(results, given)


def arguments() -> argparse.Namespace:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--model", default="breast-us", help="a shipped model's name or a trained one's folder")
    parser.add_argument("--base-model", help="its base model's folder, if not in the cache")
    parser.add_argument("--clients", type=int, default=64)
    parser.add_argument("--requests", type=int, default=50, help="of each client")
    parser.add_argument("--alone", type=int, default=100, help="requests one at a time")
    parser.add_argument("--rounds", type=int, default=5)
    parser.add_argument("--threads", type=int, default=os.cpu_count() or 1, help="of each server")
    parser.add_argument("--json", type=Path, help="file for the numbers")
    return parser.parse_args()


def default_cache() -> Path:
    from radllm_backend.language.base_model_cache import cache_folder

    return cache_folder()


def one_round(
    given: argparse.Namespace, name: str, load: str, number: int, plain: LocalServer, batched: LocalServer
) -> dict[str, float]:
    """Requests a second of either server on lesions that no round had before."""
    parts = requests_of(given, name, load, 1000 * number + 300 * LOADS.index(load))
    return {
        "one at a time": rate(plain, [[body for part in parts for body in part][: given.alone]]),
        "together, without micro-batches": rate(plain, shortened(parts, given.alone)),
        "together": rate(batched, parts),
    }


def requests_of(given: argparse.Namespace, name: str, load: str, seed: int) -> list[list[bytes]]:
    """What each client sends."""
    total = given.clients * given.requests
    count = {"different": total, "mixed": max(1, total // _ASKED), "shared": given.requests}[load]
    bodies = [json.dumps(body_of([lesion], name)).encode() for lesion in lesions(given.model, count, seed)]
    if load == "shared":
        return [bodies] * given.clients
    drawn = bodies if load == "different" else random.Random(seed).choices(bodies, k=total)
    return [drawn[start : start + given.requests] for start in range(0, total, given.requests)]


def shortened(parts: list[list[bytes]], count: int) -> list[list[bytes]]:
    """As many clients with fewer requests each."""
    each = max(1, -(-count // len(parts)))
    return [part[:each] for part in parts]


def rate(server: LocalServer, parts: list[list[bytes]]) -> float:
    """Requests a second of clients that each send their bodies one after another on one connection."""
    failures: list[int] = []

    def client(bodies: list[bytes]) -> None:
        connection = http.client.HTTPConnection("127.0.0.1", port_of(server), timeout=3600)
        headers = headers_of(server)
        for body in bodies:
            connection.request("POST", "/predict", body, headers)
            response = connection.getresponse()
            response.read()
            if response.status != 200:
                failures.append(response.status)
        connection.close()

    threads = [threading.Thread(target=client, args=(bodies,)) for bodies in parts]
    started = time.perf_counter()
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    if failures:
        raise SystemExit(f"{len(failures)} requests failed, first with status {failures[0]}.")
    return sum(map(len, parts)) / (time.perf_counter() - started)


def report(results: dict[str, list[dict[str, float]]], given: argparse.Namespace) -> None:
    summary = {}
    for load, rounds in results.items():
        medians = {kind: statistics.median(rates[kind] for rates in rounds) for kind in rounds[0]}
        ratios = sorted(rates["together"] / rates["one at a time"] for rates in rounds)
        summary[load] = {
            "requests_per_second": medians,
            "ratio": statistics.median(ratios),
            "ratio_range": [ratios[0], ratios[-1]],
        }
        print(f"{load} lesions, {given.clients} clients:")
        for kind, median in medians.items():
            print(f"  {median:10.1f} requests/s {kind}")
        print(f"  {statistics.median(ratios):10.2f} times ({ratios[0]:.2f} to {ratios[-1]:.2f})")
    if given.json:
        given.json.write_text(json.dumps({"model": given.model, "threads": given.threads, **summary}, indent=1) + "\n")


if __name__ == "__main__":
    main()
