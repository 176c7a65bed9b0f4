"""Requests by the thousand against a real server: `python tests/fuzz_requests.py RUN PICTURE --count 20000`.

One in four is made by schemathesis from the server's own OpenAPI; the others are good requests of every kind of client that were
changed at random: bytes of bodies flipped, cut out and repeated, values of JSON replaced by extreme ones, settings out of their
ranges, headers exchanged. Request n depends on n and the seed alone. A fault is: status 500 or any that is not documented, an
answer that is no JSON, one later than TIME_LIMIT_S, a server that has grown by more than GROWTH_MB, or is gone. Exit code 1 where
there is one.
"""

from __future__ import annotations

import argparse
import base64
import json
import re
import subprocess
import sys
import time
from collections import Counter
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any

import httpx2
import numpy as np

from img2seq.config.decoding import SETTINGS
from img2seq.data.seeds import generator

TIME_LIMIT_S = 40  # a request has 30
GROWTH_MB = 500
CLIENTS = 4
STATUSES = {200, 400, 404, 405, 413, 415, 422, 503, 504}
EXTREMES: list[Any] = [
    None, True, -1, 0, 1, 2**31, 2**63, -(2**63), 10**400, 1e308, -0.0, 1e-320, 0.5, "", "a", "\x00", "é" * 50, "x" * 5000,
    [], {}, [[]], [None] * 50, {"": ""}, {"a": {"b": [1]}}, "data:image/png;base64,", "http://127.0.0.1:9/x.png", "http://[", "🙂",
]  # fmt: skip


@dataclass(frozen=True)
class Request:
    """A request that can be changed."""

    path: str
    body: Any  # bytes, or JSON
    headers: dict[str, str] = field(default_factory=dict)
    query: dict[str, str] = field(default_factory=dict)


def good_requests(picture: bytes, model: str, names: tuple[str, str]) -> list[Request]:
    """Return a request of each kind of client."""
    text = base64.b64encode(picture).decode()
    url = {"type": "image_url", "image_url": {"url": f"data:image/png;base64,{text}"}}
    chat = {
        "model": model,
        "messages": [{"role": "user", "content": [{"type": "text", "text": "?"}, url]}],
        "n": 2,
        "stream": False,
    }
    return [
        Request("/caption", picture, {"Content-Type": "image/png"}),
        Request("/caption", *form([picture])),
        Request("/caption", *form([picture, picture, picture])),
        Request("/predict", [{names[0]: text, names[1]: ""}]),
        Request(f"/models/{model}", {"inputs": text, "parameters": {"num_beams": 3, "do_sample": False}}),
        Request(f"/models/{model}/object", picture, {"Content-Type": "application/octet-stream"}),
        Request("/v1/chat/completions", chat),
        Request("/v1/chat/completions", chat | {"stream": True, "logprobs": True, "temperature": 0.7, "seed": 1}),
    ]


def form(pictures: list[bytes]) -> tuple[bytes, dict[str, str]]:
    """Return a multipart body and its headers."""
    request = httpx2.Request(
        "POST", "http://x/", files=[("image", picture) for picture in pictures], data={"beam_size": "2"}
    )
    return request.read(), {"Content-Type": request.headers["content-type"]}


def changed(request: Request, chance: np.random.Generator) -> Request:
    """Return the request with some things changed."""
    for _ in range(int(chance.integers(1, 4))):
        what = int(chance.integers(6))
        if what == 0:
            name = str(chance.choice([*SETTINGS, "beginning", "model", "nothing", ""]))
            values = ["", "0", "-1", "1e9", "nan", "beam", "sample", "a", "é", "999999999999999999999", "[1]", "{", "3"]
            request = replace(request, query=request.query | {name: str(chance.choice(values))})
        elif what == 1:
            kinds = [
                "image/png",
                "application/json",
                "multipart/form-data",
                "multipart/form-data; boundary=x",
                "text/plain",
                "",
                "image/",
            ]
            request = replace(request, headers={"Content-Type": str(chance.choice(kinds))})
        elif isinstance(request.body, bytes):
            request = replace(request, body=changed_bytes(request.body, chance))
        elif what == 2:
            body = json.dumps(request.body).encode()
            request = replace(request, body=changed_bytes(body, chance), headers={"Content-Type": "application/json"})
        else:
            request = replace(request, body=changed_json(request.body, chance))
    return request


def changed_bytes(data: bytes, chance: np.random.Generator) -> bytes:
    """Return bytes some of which were flipped, cut out, repeated or replaced."""
    found = bytearray(data)
    for _ in range(int(chance.integers(1, 6))):
        begin = int(chance.integers(len(found) + 1))
        length = int(chance.integers(1, 40))
        match int(chance.integers(5)):
            case 0:
                found[begin : begin + length] = chance.bytes(length)
            case 1:
                del found[begin : begin + length]
            case 2:
                found[begin:begin] = found[begin : begin + length] * int(chance.integers(1, 50))
            case 3:
                del found[begin:]
            case 4:
                found[begin:begin] = b"\r\n--" + chance.bytes(4)
    return bytes(found)


def changed_json(value: Any, chance: np.random.Generator) -> Any:
    """Return a JSON value with one of its parts exchanged, taken out or added."""
    if isinstance(value, dict) and value and chance.random() < 0.85:
        name = str(chance.choice(list(value)))
        match int(chance.integers(4)):
            case 0:
                return {key: part for key, part in value.items() if key != name}
            case 1:
                return {
                    **value,
                    str(chance.choice([*SETTINGS, "n", "stream", "max_tokens"])): EXTREMES[
                        int(chance.integers(len(EXTREMES)))
                    ],
                }
        return {**value, name: changed_json(value[name], chance)}
    if isinstance(value, list) and value and chance.random() < 0.85:
        place = int(chance.integers(len(value)))
        if chance.random() < 0.1:
            return value * int(chance.integers(0, 60))
        return [changed_json(part, chance) if i == place else part for i, part in enumerate(value)]
    if isinstance(value, str) and len(value) > 100 and chance.random() < 0.7:
        return changed_bytes(value.encode(), chance).decode("latin-1")
    return EXTREMES[int(chance.integers(len(EXTREMES)))]


class Server:
    """A server in a process of its own."""

    def __init__(self, run: Path, log: Path):
        self.log = log
        command = [sys.executable, "-m", "img2seq", "serve", str(run), "--port", "0", "--device", "cpu"]
        with log.open("wb") as file:
            self.process = subprocess.Popen(command, stderr=file)
        while b"ready after" not in log.read_bytes():
            if self.process.poll() is not None:
                raise SystemExit(log.read_text())
            time.sleep(0.1)
        found = re.search(r"listening at (\S+)", log.read_text())
        assert found
        self.url = found[1]

    def megabytes(self) -> float:
        """Return the memory it has now."""
        status = Path(f"/proc/{self.process.pid}/status").read_text()
        return int(status.partition("VmRSS:")[2].split()[0]) / 1000


def judged(answer: httpx2.Response) -> str:
    """Return what is wrong with an answer, or its status."""
    if answer.status_code not in STATUSES:
        return f"FAULT: status {answer.status_code}: {answer.text[:200]}"
    if not answer.headers.get("content-type", "").startswith(("application/json", "text/event-stream")):
        return f"FAULT: {answer.headers.get('content-type')}"
    if answer.status_code != 200 and not answer.json().get("error"):
        return f"FAULT: no reason: {answer.text[:200]}"
    return str(answer.status_code)


def send(client: httpx2.Client, request: Request) -> str:
    """Send a request and judge the answer."""
    body: dict[str, Any] = {"content": request.body} if isinstance(request.body, bytes) else {"json": request.body}
    try:
        answer = client.post(request.path, params=request.query, headers=request.headers, **body)
    except (UnicodeEncodeError, ValueError, httpx2.InvalidURL, httpx2.LocalProtocolError):
        return "not sent"  # this client refuses it
    except httpx2.TimeoutException:
        return f"FAULT: no answer in {TIME_LIMIT_S} s"
    except httpx2.TransportError as error:
        return f"FAULT: {type(error).__name__}: {error}"
    return judged(answer)


def from_openapi(server: Server, count: int, seed: int) -> Counter[str]:
    """Send requests that schemathesis makes."""
    import schemathesis
    from hypothesis import HealthCheck, Phase, given, settings
    from hypothesis import seed as seeded

    schema = schemathesis.openapi.from_url(f"{server.url}/openapi.json")
    operations: list[Any] = [found.ok() for found in schema.get_all_operations()]
    outcomes: Counter[str] = Counter()
    with httpx2.Client(base_url=server.url, timeout=TIME_LIMIT_S, trust_env=False) as client:
        for operation in operations:

            @seeded(seed)
            @settings(max_examples=max(1, count // len(operations)), deadline=None, database=None, phases=[Phase.generate],
                      suppress_health_check=list(HealthCheck))  # fmt: skip
            @given(case=operation.as_strategy())
            def one(case: Any) -> None:
                prepared = case.as_transport_kwargs(base_url=server.url)
                options = {
                    k: prepared[k]
                    for k in ("params", "headers", "json", "files", "data")
                    if prepared.get(k) is not None
                }
                if isinstance(options.get("data"), bytes | str):
                    options["content"] = options.pop("data")
                try:
                    answer = client.request(prepared["method"], prepared["url"], **options)
                except httpx2.TimeoutException:
                    outcomes[f"FAULT: no answer in {TIME_LIMIT_S} s: {case.path}"] += 1
                except (
                    UnicodeError,
                    ValueError,
                    TypeError,
                    httpx2.InvalidURL,
                    httpx2.LocalProtocolError,
                    AttributeError,
                ):
                    outcomes["not sent"] += 1
                except httpx2.TransportError as error:
                    outcomes[f"FAULT: {type(error).__name__}: {error}"] += 1
                else:
                    outcomes["200" if case.path == "/metrics" and answer.status_code == 200 else judged(answer)] += 1

            one()
    return outcomes


def main() -> int:
    """Send the requests asked for and print one line of figures and every fault."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("run", type=Path, help="a finished run")
    parser.add_argument("picture", type=Path, help="a picture file")
    parser.add_argument("--first", type=int, default=0, help="number of the first request")
    parser.add_argument("--count", type=int, default=20_000, help="how many")
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--log", type=Path, default=Path("/tmp/img2seq-fuzzed-server.log"))
    arguments = parser.parse_args()
    server = Server(arguments.run, arguments.log)
    try:
        begun, before = time.monotonic(), server.megabytes()
        outcomes = from_openapi(server, arguments.count // 4, arguments.seed) if arguments.count >= 100 else Counter()
        info = httpx2.get(f"{server.url}/info", trust_env=False).json()["models"][0]
        kinds = good_requests(arguments.picture.read_bytes(), info["name"], (info["input"]["name"], info["output"]))
        with httpx2.Client(base_url=server.url, timeout=TIME_LIMIT_S, trust_env=False) as client:
            assert [send(client, request) for request in kinds] == ["200"] * len(kinds)  # before anything is changed

            def one(number: int) -> str:
                chance = generator("request", arguments.seed, number)
                return send(client, changed(kinds[number % len(kinds)], chance))

            numbers = range(arguments.first, arguments.first + arguments.count - arguments.count // 4)
            with ThreadPoolExecutor(CLIENTS) as pool:
                for number, outcome in zip(numbers, pool.map(one, numbers), strict=True):
                    outcomes[outcome if not outcome.startswith("FAULT") else f"{outcome} (request {number})"] += 1
            assert [send(client, request) for request in kinds] == ["200"] * len(kinds)  # and after it all
        grown = server.megabytes() - before
    finally:
        alive = server.process.poll() is None
        server.process.terminate()
        code = server.process.wait(60)
    faults = [f"{n} x {outcome}" for outcome, n in outcomes.items() if outcome.startswith("FAULT")]
    faults += ["FAULT: the server was gone"] * (not alive) + [f"FAULT: it ended with {code}"] * (code != 0)
    faults += [f"FAULT: memory grew by {grown:.0f} MB"] * (grown > GROWTH_MB)
    faults += ["FAULT: a traceback in the log"] * ("Traceback" in arguments.log.read_text())
    print("\n".join(faults[:50]))
    figures = ", ".join(
        f"{n:,} {outcome}" for outcome, n in sorted(outcomes.items()) if not outcome.startswith("FAULT")
    )
    print(f"{outcomes.total():,} requests (seed {arguments.seed}): {len(faults)} faults; {figures}; memory grew by {grown:.0f} MB, "
          f"{time.monotonic() - begun:.0f} s")  # fmt: skip
    return 1 if faults else 0


if __name__ == "__main__":
    sys.exit(main())
