"""`img2seq serve`."""

from __future__ import annotations

import argparse
import sys
import time
from pathlib import Path

from img2seq.cli.arguments import Verbs, add_verb, device, set_run, whole_number
from img2seq.config.devices import DEVICES
from img2seq.config.ranges import names_in_words
from img2seq.errors import ConfigError, Img2SeqError
from img2seq.extras import SERVE
from img2seq.model.cpu.cores import let_threads_sleep
from img2seq.serving.limits import Limits


def add_parser(verbs: Verbs) -> None:
    """Add the verb to the command line."""
    parser = add_verb(
        verbs,
        "serve",
        help="answer requests for captions over HTTP, with a page to drop pictures on",
        examples=[
            "img2seq serve runs/demo/image",
            "img2seq serve runs/shop runs/museum --port 9000 --api-key-file keys.txt",
        ],
    )
    parser.add_argument(
        "runs",
        nargs="+",
        metavar="RUN",
        help="finished runs, or exports on the hub (hf:OWNER/NAME), each named by its folder; the first is the default",
    )
    parser.add_argument(
        "--host", default="127.0.0.1", help="address to listen on; 0.0.0.0 is every network (default: 127.0.0.1)"
    )
    parser.add_argument(
        "--port", type=whole_number(0, 65535), default=8000, metavar="N", help="0 takes a free one (default: 8000)"
    )
    parser.add_argument(
        "--device", type=device, default="auto", help=f"where to compute: {names_in_words(DEVICES)} (default: auto)"
    )
    limits = parser.add_argument_group("limits")
    for flag, lowest, highest, default, meaning in (
        ("--max-queue", 1, 100_000, Limits.max_queue, "pictures that wait for the model; more are refused with 503"),
        ("--max-batch", 1, 1024, Limits.max_batch, "pictures captioned together"),
        (
            "--max-wait-ms",
            0,
            10_000,
            round(1000 * Limits.max_wait_s),
            "milliseconds a picture waits for others to join it",
        ),
        ("--timeout-s", 1, 3600, round(Limits.timeout_s), "seconds a request may take; then 504"),
        ("--max-bytes", 1000, 10**10, Limits.max_bytes, "bytes of a request's body; more are refused with 413"),
    ):
        limits.add_argument(
            flag,
            type=whole_number(lowest, highest),
            default=default,
            metavar="N",
            help=f"{meaning} ({lowest} to {highest}; default: {default})",
        )
    access = parser.add_argument_group("access")
    access.add_argument(
        "--api-key-file",
        metavar="FILE",
        help="keys, one a line: requests need Authorization: Bearer KEY (default: none)",
    )
    access.add_argument(
        "--allow-url",
        action="append",
        default=[],
        metavar="HOST",
        help="fetch pictures from this host where a request names one there (default: none are fetched)",
    )
    access.add_argument("--log-captions", action="store_true", help="write captions into the log, too")
    set_run(parser, run, needs=SERVE)


def run(arguments: argparse.Namespace, overrides: list[str]) -> int:
    """Serve until a signal comes; exit code 2 if the models fail."""
    began = time.monotonic()
    let_threads_sleep()
    from img2seq.run.captioning_folder import captioning_folder
    from img2seq.serving.app import build
    from img2seq.serving.fetch import Fetcher
    from img2seq.serving.models import loader, names_of
    from img2seq.serving.server import Server, listen
    from img2seq.serving.service import Service, no_urls
    from img2seq.serving.worker import Worker

    # What is wrong with one is said before anything is started; what is on the hub is fetched once.
    names = {name: str(captioning_folder(folder)) for name, folder in names_of(arguments.runs).items()}
    keys = _keys(arguments.api_key_file)
    fetch = Fetcher(arguments.allow_url) if arguments.allow_url else no_urls
    limits = Limits(
        arguments.max_queue, arguments.max_batch, arguments.max_wait_ms / 1000, arguments.timeout_s, arguments.max_bytes
    )
    listener = listen(arguments.host, arguments.port)
    worker = Worker(loader(names, device=arguments.device, loaded=lambda runs: service.loaded(runs)), limits)
    service = Service(worker, limits, fetch=fetch)
    app = build(service, keys=keys, with_captions=arguments.log_captions)
    host, port = listener.getsockname()[:2]
    where = f"http://{f'[{host}]' if ':' in host else host}:{port}"

    def when_ready() -> None:
        print(
            f"ready after {time.monotonic() - began:.1f} s: {', '.join(names)} at {where}", file=sys.stderr, flush=True
        )

    server = Server(app, worker, when_ready=when_ready)
    worker.when_over = server.over
    print(f"listening at {where}", file=sys.stderr, flush=True)
    worker.start()
    server.run(sockets=[listener])
    worker.stop()
    service.close()
    if worker.failure is None:
        return 0
    if isinstance(worker.failure, Img2SeqError):
        raise worker.failure
    raise Img2SeqError(f"the model failed: {type(worker.failure).__name__}: {worker.failure}") from worker.failure


def _keys(path: str | None) -> list[str]:
    """Return the keys of a file. Raises ConfigError where it has none: then everyone could come in."""
    if path is None:
        return []
    try:
        text = Path(path).read_text(encoding="utf-8-sig")
    except UnicodeDecodeError:
        raise ConfigError(f"{path}: expected API keys as text, one a line") from None
    lines = (line.strip() for line in text.splitlines())
    keys = [line for line in lines if line and not line.startswith("#")]
    if not keys:
        raise ConfigError(f"{path}: expected API keys, one a line; found none")
    if not all(key.isascii() and key.isprintable() and " " not in key for key in keys):
        raise ConfigError(
            f"{path}: expected keys of ASCII letters, digits and signs: others cannot be sent in a header"
        )
    return keys
