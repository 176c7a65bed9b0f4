"""A server for captions beside EIR's: start, one picture, sixteen at once, memory, and whether it says that it lives while it works.

    python -m benchmarks serving [--repeats 3] [--folder F] [--no-peer]      beside EIR, then the open-loop load test: about eight minutes
    python -m benchmarks serving --part load                                 the load test alone
    python -m benchmarks serving --part soak --minutes 30                    half of the greatest load for so long: is memory flat?

Both sides serve a model of the tutorial's files, trained on the same 2,500 photographs until captions are such (the first time; `--folder`
keeps them), and get the very same requests for the same photographs: `POST /predict`, as EIR's clients send it. Ours searches with five beams,
its default; EIR samples, and how long its captions are decides its times: a token is compared, too. The captions of ours are compared with those of `Captioner`. The load test offers rates that grow until the queue
is full, whatever comes back. Every loop is bounded in count and time; requests go to 127.0.0.1 alone.
"""

from __future__ import annotations

import argparse
import asyncio
import base64
import json
import os
import signal
import statistics
import sys
import tempfile
import time
from collections import Counter
from collections.abc import Sequence
from contextlib import AbstractContextManager
from pathlib import Path
from typing import Any

from benchmarks.figures import result, save, show, spread
from benchmarks.http_load import (
    Answer,
    Ask,
    Server,
    Step,
    at_once,
    by_clients,
    in_turn,
    offer,
    own_environment,
    percentile,
    pings,
    serving,
)
from benchmarks.peers import EIR, interpreter
from benchmarks.photographs import ROOT, photographs
from benchmarks.training import BATCH, SHORT_IMAGES, arguments, run

FIGURE = ROOT / "docs" / "images" / "serving_load"
PICTURES, AT_ONCE, CROWD = 64, 16, 150
EPOCHS = {"eir": 3, "ours": 1}  # until captions are such, and end
PEER_PICTURES, OUR_ROUNDS = 16, 8  # the peer takes more than a second a picture, and some of it once more for pings
LOAD_S, PING_S = 10.0, 10.0
STEP_S, FIRST_SHARE, GROWTH, MOST_STEPS, ENOUGH_REFUSED = 10.0, 0.25, 1.25, 14, 0.25
PEER_TIMEOUT_S, TIMEOUT_S = 120.0, 40.0
FLAT_MB, FLAT_SHARE = 30.0, 0.03  # memory may grow by the larger of the two while it is soaked

# work, figure, goal: how many times less (or more, of a speed) than EIR's
RATIOS = (
    ("ready after start, s", "ready_s", None),
    ("one picture, median, s", "one_s", 20.0),
    ("one picture, median, s a token", "token_s", None),
    ("16 at once, pictures/s", "pictures_per_s", 40.0),
    ("memory after these, GB", "memory_gb", None),
)
# work, figure, at most
LIMITS = (
    ("ready after start, s", "ready_s", 4.0),
    ("memory, GB", "memory_gb", 0.8),
    (f"most memory, {CROWD} requests at once, GB", "crowd_gb", 1.2),
    ("`/health` during full load, p99, s", "health_p99_s", 0.1),
)


# --- what is served


def trained(side: str, folder: Path) -> Path:
    """Return a run of a side, trained where it is not there yet."""
    output = folder / f"{side}_image"
    if not (folder / f"{side}.done").exists():
        data = photographs(folder / "short", SHORT_IMAGES)
        steps = (SHORT_IMAGES - 500) // BATCH
        print(f"training the model of {side}, once", flush=True)
        line = arguments("image", data, output, epochs=EPOCHS[side], interval=steps, workers=0)
        if side == "eir":  # its warm-up is 2,000 steps, after which nothing is learned: its captions would never end
            line.append("--globals.lr_schedule.warmup_steps=20")
        run(side, line, output)
        (folder / f"{side}.done").touch()
    return output


def started(side: str, run_folder: Path, folder: Path) -> AbstractContextManager[Server]:
    """Start a side's server."""
    if side == "eir":
        model = max((run_folder / "saved_models").glob("*.pt"), key=lambda path: path.stat().st_mtime)
        program = interpreter(EIR).with_name("eirserve")
        command = [program, "--model-path", model, "--device", "cpu", "--host", "127.0.0.1", "--port", "{port}"]
        return serving(command, "/info", folder / "eir_server.log", own_environment())
    command = [sys.executable, "-m", "img2seq", "serve", run_folder, "--port", "{port}"]
    return serving(command, "/ready", folder / "our_server.log", own_environment(str(ROOT / "src")))


def predictions(paths: Sequence[Path]) -> list[Ask]:
    """Return the requests that EIR's clients send, one for each photograph."""
    bodies = [[{"image_captioning": base64.b64encode(path.read_bytes()).decode(), "captions": ""}] for path in paths]
    return [Ask("/predict", json.dumps(body).encode(), "application/json") for body in bodies]


def raw(paths: Sequence[Path]) -> list[Ask]:
    """Return the requests of our own clients: the bytes of each photograph."""
    return [Ask("/caption", path.read_bytes(), "image/jpeg") for path in paths]


def texts(answers: Sequence[Answer]) -> list[str]:
    """Return the caption in each answer; SystemExit for one that has none."""
    found = []
    for answer in answers:
        if answer.status != 200:
            raise SystemExit(f"expected a caption, found status {answer.status}: {answer.body[:300]!r}")
        data = json.loads(_body(answer.body))
        found.append(str(data["result"][0]["captions"] if "result" in data else data["captions"][0]["text"]))
    return found


def _body(body: bytes) -> bytes:
    """Return a body without the marks of chunks, where it came in such."""
    if body[:1] in b"{[":
        return body
    whole = b""
    while body:
        size, _, body = body.partition(b"\r\n")
        length = int(size, 16)
        whole, body = whole + body[:length], body[length + 2 :]
    return whole


def expected(run_folder: Path, paths: Sequence[Path]) -> list[str]:
    """Return the captions that `Captioner` gives."""
    from img2seq import Captioner

    captioner = Captioner.load(run_folder, device="cpu")
    return [captioner.caption(path).text for path in paths]


# --- beside EIR


def compare(folder: Path, repeats: int, sides: Sequence[str]) -> dict[str, Any]:
    """Measure each side."""
    runs = {side: trained(side, folder) for side in sides}
    paths = sorted((photographs(folder / "short", SHORT_IMAGES)["images"]).glob("*.jpg"))[:PICTURES]
    starts: dict[str, list[float]] = {side: [] for side in sides}
    for repeat in range(repeats + 1):  # in turn; the first fills the caches of the disk
        for side in sides:
            with started(side, runs[side], folder) as server:
                if repeat:
                    starts[side].append(server.ready_s)
    found = {}
    for side in sides:
        with started(side, runs[side], folder) as server:
            found[side] = measure(side, server, paths)
        found[side]["ready_s"] = spread(starts[side])
        print(f"{side}: {json.dumps(found[side])[:600]}", flush=True)
    if "ours" in found:
        wanted = expected(runs["ours"], paths)
        captions = found["ours"].pop("captions")
        found["ours"]["equal_captions"] = sum(a == b for a, b in zip(captions, wanted * 99, strict=False))
        found["ours"]["captions"] = len(captions)
    return found


def measure(side: str, server: Server, paths: Sequence[Path]) -> dict[str, Any]:
    """Measure a server that runs: one picture, many at once, memory, pings."""
    is_peer, asks = side == "eir", predictions(paths)
    timeout_s, health = (PEER_TIMEOUT_S, "/info") if is_peer else (TIMEOUT_S, "/health")
    texts(asyncio.run(in_turn(server, asks[:2], timeout_s=timeout_s)))  # the first ones warm it up
    idle_mb = server.memory_mb()
    one = asyncio.run(in_turn(server, asks[: PEER_PICTURES if is_peer else PICTURES], timeout_s=timeout_s))
    captions, speeds = texts(one), []
    for place in range(0 if is_peer else OUR_ROUNDS):
        part = [asks[(place * AT_ONCE + i) % len(asks)] for i in range(AT_ONCE)]
        began = time.monotonic()
        answers = asyncio.run(at_once(server, part, timeout_s=timeout_s))
        speeds.append(AT_ONCE / (time.monotonic() - began))
        captions += texts(answers)
    waits, answers = asyncio.run(_busy(server, asks, health, timeout_s=timeout_s, is_peer=is_peer))
    if is_peer:  # one round of sixteen is enough: it is asked meanwhile whether it lives, which waits
        speeds.append(AT_ONCE / max(answer.seconds for answer in answers))
    found: dict[str, Any] = {
        "one_s": spread([answer.seconds for answer in one]),
        "pictures_per_s": spread(speeds),
        "idle_gb": idle_mb / 1000,
        "memory_gb": server.memory_mb() / 1000,
    }
    found |= {"health_p99_s": percentile(waits, 0.99), "health_most_s": max(waits), "health_pings": len(waits)}
    lengths = [
        1 + text.count(" ") + 1 for text in texts(one)
    ]  # and the end; what EIR leaves out of a text leaves its blank
    found["token_s"] = spread([answer.seconds / n for answer, n in zip(one, lengths, strict=True)])
    found["tokens_a_caption"] = statistics.mean(lengths)
    found["samples"] = texts(one)[:3]
    found["words_a_caption"] = statistics.mean(len(text.split()) for text in texts(one))
    if is_peer:
        found["same_again"] = sum(a == b for a, b in zip(texts(answers), captions, strict=False))
        return found
    texts(answers)  # each has one
    answers = asyncio.run(at_once(server, [asks[i % len(asks)] for i in range(CROWD)], timeout_s=timeout_s))
    found["crowd_status"] = dict(Counter(str(answer.status) for answer in answers))
    found["crowd_gb"] = server.memory_mb("VmHWM") / 1000
    return found | {"captions": captions}


async def _busy(
    server: Server, asks: Sequence[Ask], health: str, *, timeout_s: float, is_peer: bool
) -> tuple[list[float], list[Answer]]:
    """Keep sixteen requests in work and ask meanwhile whether it lives."""
    load: Any = (
        at_once(server, asks[:AT_ONCE], timeout_s=timeout_s)
        if is_peer
        else by_clients(server, asks, AT_ONCE, LOAD_S, timeout_s=timeout_s)
    )
    work = asyncio.create_task(load)
    await asyncio.sleep(0.2)
    waits = await pings(server, health, PING_S - 0.5)
    return waits, await work


def table(found: dict[str, Any]) -> list[tuple[str, str, str, str, str]]:
    """Return rows: work, EIR, ours, ratio, goal."""
    peer, ours = found.get("eir", {}), found["ours"]
    rows = []
    for work, name, goal in RATIOS:
        if peer:
            times = _middle(peer[name]) / _middle(ours[name])
            times = 1 / times if name == "pictures_per_s" else times
            rows.append(
                (work, _shown(peer[name]), _shown(ours[name]), f"{times:.1f}x", f"at least {goal:g}x" if goal else "")
            )
    for work, name, most in LIMITS:
        theirs = _shown(peer[name]) if name in peer else ""
        met = "met" if _middle(ours[name]) <= most else "missed"
        rows.append((work, theirs, _shown(ours[name]), met, f"at most {most:g}"))
    return rows


def _middle(value: Any) -> float:
    return float(value["median"] if isinstance(value, dict) else value)


def _shown(value: Any) -> str:
    return show(value, 3 if value["median"] < 1 else 1) if isinstance(value, dict) else f"{value:.3f}"


# --- load


def load_test(server: Server, asks: Sequence[Ask], wanted: Sequence[str]) -> list[dict[str, Any]]:
    """Offer rates that grow until the queue is full, and return what came of each."""
    answers = asyncio.run(by_clients(server, asks, AT_ONCE, 5.0, timeout_s=TIMEOUT_S))
    capacity = len(answers) / 5.0
    print(f"sixteen clients, one request after the other: {capacity:.1f} pictures/s", flush=True)
    rows: list[dict[str, Any]] = []
    for place in range(MOST_STEPS):
        rate = FIRST_SHARE * capacity * GROWTH**place
        step = asyncio.run(offer(server, asks, rate, STEP_S, timeout_s=TIMEOUT_S, seed=place))
        rows.append(row_of(step, asks, wanted))
        print("  " + ", ".join(f"{k} {v}" for k, v in rows[-1].items()), flush=True)
        if rows[-1]["refused"] > ENOUGH_REFUSED:
            break
    return rows


def row_of(step: Step, asks: Sequence[Ask], wanted: Sequence[str]) -> dict[str, Any]:
    """Return the figures of an offered rate."""
    good = [answer for answer in step.answers if answer.status == 200]
    right = sum(
        texts([answer])[0] == wanted[place % len(asks)]
        for place, answer in enumerate(step.answers)
        if answer.status == 200
    )
    refused = [answer.seconds for answer in step.answers if answer.status == 503]
    percentiles = {f"p{n}_s": round(percentile([a.seconds for a in good], n / 100), 3) for n in (50, 90, 99)}
    return {
        "offered_per_s": round(step.rate, 1),
        "answered_per_s": round(len(good) / step.wall_s, 1),
        **percentiles,
        "refused": round(step.share(503), 3),
        "refusal_p99_s": round(percentile(refused, 0.99), 3) if refused else None,
        "other": sum(answer.status not in (200, 503) for answer in step.answers),
        "equal_captions": right,
        "captions": len(good),
        "memory_gb": round(step.most_mb / 1000, 3),
    }


def draw(rows: Sequence[dict[str, Any]]) -> None:
    """Draw latency against offered load, and the share that was refused."""
    from matplotlib.figure import Figure
    from matplotlib.ticker import NullLocator

    from img2seq.report.curves import COLOURS, save_figure

    figure = Figure(figsize=(8.0, 4.6), layout="constrained")
    upper, lower = figure.subplots(2, 1, sharex=True, height_ratios=(3, 1))
    rates = [row["offered_per_s"] for row in rows]
    for (name, words), colour in zip(
        (("p50_s", "half of all within"), ("p90_s", "90 %"), ("p99_s", "99 %")), COLOURS, strict=False
    ):
        upper.plot(rates, [1000 * row[name] for row in rows], "o-", color=colour, label=words, markersize=4)
    upper.set_yscale("log")
    least, most = min(row["p50_s"] for row in rows), max(row["p99_s"] for row in rows)
    ticks = [ms for ms in (20, 50, 100, 200, 500, 1000, 2000, 5000, 10_000, 20_000) if 500 * least < ms < 2000 * most]
    upper.set_yticks(ticks, [f"{ms:,}" for ms in ticks])
    upper.yaxis.set_minor_locator(NullLocator())
    upper.set_ylabel("answered within, ms")
    upper.legend(frameon=False)
    lower.plot(rates, [100 * row["refused"] for row in rows], "o-", color="#181818", markersize=4)
    lower.set_ylabel("refused, %")
    lower.set_ylim(-3, 103)
    lower.set_xlabel("requests offered a second, one picture each")
    for axes in (upper, lower):
        axes.grid(alpha=0.25)
        for side in ("top", "right"):
            axes.spines[side].set_visible(False)
    save_figure(figure, FIGURE, formats=["png"])


# --- soak


def soak(server: Server, asks: Sequence[Ask], wanted: Sequence[str], rate: float, minutes: float) -> dict[str, Any]:
    """Offer a rate for so long, note memory at the end of each part, and return what was found."""
    n_parts = max(6, round(minutes * 2))
    part_s = 60 * minutes / n_parts
    memory, wrong, statuses, slowest = [], 0, Counter[int](), 0.0
    for place in range(n_parts):
        step = asyncio.run(offer(server, asks, rate, part_s, timeout_s=TIMEOUT_S, seed=place))
        memory.append(server.memory_mb())
        statuses.update(answer.status for answer in step.answers)
        row = row_of(step, asks, wanted)
        wrong += row["captions"] - row["equal_captions"]
        slowest = max(slowest, *(answer.seconds for answer in step.answers))
        minute = (place + 1) * part_s / 60
        print(
            f"  {minute:5.1f} min  {memory[-1]:7.1f} MB  {row['answered_per_s']:6.1f} pictures/s  p99 {row['p99_s']} s",
            flush=True,
        )
    third = max(1, n_parts // 3)
    first, last = (statistics.median(part) for part in (memory[third : 2 * third], memory[-third:]))
    return {
        "rate": rate,
        "minutes": minutes,
        "memory_mb": [round(mb, 1) for mb in memory],
        "grew_mb": round(last - first, 1),  # the first third warms up
        "is_flat": last - first <= max(FLAT_MB, FLAT_SHARE * first),
        "statuses": {str(status): n for status, n in statuses.items()},
        "wrong_captions": wrong,
        "slowest_s": round(slowest, 3),
    }


# --- the command


def main(line: list[str]) -> None:
    """Measure, print and write benchmarks/results/serving.json."""
    options = argparse.ArgumentParser(prog="python -m benchmarks serving", description=__doc__)
    options.add_argument("--part", choices=("all", "compare", "load", "soak"), default="all")
    options.add_argument(
        "--repeats", type=int, choices=range(1, 21), default=3, metavar="N", help="starts of each side"
    )
    options.add_argument("--minutes", type=float, default=30.0, help="of the soak, at most 120")
    options.add_argument(
        "--rate", type=float, help="of the soak (default: half of the greatest that was answered in full)"
    )
    options.add_argument("--folder", type=Path, help="keep the models there")
    options.add_argument("--no-peer", action="store_true", help="leave EIR out")
    given = options.parse_args(line)
    signal.signal(signal.SIGTERM, lambda *_: sys.exit(143))  # the servers are ended, too
    if not 0 < given.minutes <= 120:
        options.error("--minutes: expected more than 0 and at most 120")
    with tempfile.TemporaryDirectory() as temporary:
        folder = given.folder or Path(temporary)
        folder.mkdir(parents=True, exist_ok=True)
        found = result("serving")
        found.pop("machine", None)
        found["load_of_the_machine"] = round(os.getloadavg()[0], 1)  # of others, before anything was started
        if given.part in ("all", "compare"):
            sides = ("ours",) if given.no_peer else ("eir", "ours")
            found["sides"] = compare(folder, given.repeats, sides)
            found["table"] = table(found["sides"])
            save("serving", found)
        if given.part in ("all", "load", "soak"):
            run_folder = trained("ours", folder)
            paths = sorted(photographs(folder / "short", SHORT_IMAGES)["images"].glob("*.jpg"))[:PICTURES]
            asks, wanted = raw(paths), expected(run_folder, paths)
            with started("ours", run_folder, folder) as server:
                if given.part == "soak":
                    rate = given.rate or greatest(found.get("load", [])) / 2
                    found["soak"] = soak(server, asks, wanted, rate, given.minutes)
                else:
                    found["load"] = load_test(server, asks, wanted)
                    draw(found["load"])
            save("serving", found)
    print(f"\n{report(found)}")
    if given.part == "soak" and not is_sound(found["soak"]):
        sys.exit("benchmarks: the soak is not sound")


def greatest(rows: Sequence[dict[str, Any]]) -> float:
    """Return the greatest offered rate of which nothing was refused. SystemExit where none was measured."""
    rates = [row["offered_per_s"] for row in rows if not row["refused"] and not row["other"]]
    if not rates:
        raise SystemExit("benchmarks: give --rate, or run --part load first")
    return float(max(rates))


def is_sound(soaked: dict[str, Any]) -> bool:
    """Return whether memory stayed flat and every request got its caption."""
    return bool(soaked["is_flat"] and set(soaked["statuses"]) == {"200"} and not soaked["wrong_captions"])


def report(found: dict[str, Any]) -> str:
    """Return what is kept as text."""
    lines = [f"load of the machine before: {found['load_of_the_machine']}"]
    if "table" in found:
        lines.append(f"{'work':<48}{'EIR':>26}{'ours':>26}{'':>9}  goal")
        lines += [f"{w:<48}{theirs:>26}{ours:>26}{ratio:>9}  {goal}" for w, theirs, ours, ratio, goal in found["table"]]
        ours = found["sides"]["ours"]
        lines.append(f"captions of ours equal to `Captioner`'s: {ours['equal_captions']} of {ours['captions']}")
        for side, of_side in found["sides"].items():
            lines.append(
                f"{side}: {of_side['words_a_caption']:.1f} words, {of_side['tokens_a_caption']:.1f} tokens a caption, such as {of_side['samples'][0]!r}"
            )
        lines.append(f"{CROWD} requests at once: {ours['crowd_status']}")
        if peer := found["sides"].get("eir"):
            lines.append(f"EIR's captions, the same the second time: {peer['same_again']} of {PEER_PICTURES}")
    for row in found.get("load", []):
        lines.append("  ".join(f"{name} {value}" for name, value in row.items()))
    if soaked := found.get("soak"):
        flat = "flat" if soaked["is_flat"] else "NOT FLAT"
        lines.append(
            f"soak: {soaked['minutes']:g} minutes at {soaked['rate']:.1f} pictures/s: memory {flat}, grew by {soaked['grew_mb']} MB; "
            f"answers {soaked['statuses']}, wrong captions {soaked['wrong_captions']}, slowest {soaked['slowest_s']} s"
        )
    return "\n".join(lines)
