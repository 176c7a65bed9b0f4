"""`img2seq data fetch` against a real server on this machine that is as bad as servers get, and stopped at any time.

The real hosts cannot be reached from where these tests run: their addresses, lengths and SHA-256 are only read here.
"""

from __future__ import annotations

import hashlib
import io
import json
import os
import random
import re
import shutil
import signal
import socket
import ssl
import stat
import subprocess
import sys
import threading
import time
import zipfile
from collections.abc import Callable, Iterator
from dataclasses import astuple, replace
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from typing import Any

import pytest
from PIL import Image

from img2seq.cli import main as cli
from img2seq.datasets.fetch import catalogue, download, fetch, unpack, web
from img2seq.datasets.fetch.catalogue import Archive, DataSet
from img2seq.errors import DataError
from img2seq.progress import Announcer

PIECE = 4096
PATIENCE_S = 30.0
QUIET = Announcer(level="critical", bars=False)


# --- a server ----------------------------------------------------------------------------------------------


class Host:
    """A server of files whose faults are set by a test.

    Attributes:
        files: content by path.
        fault: what is done in place of an answer; it returns whether it has answered.
        requests: (path, first byte asked for, whether a part was asked for), in order.
        busiest: the most requests at one time.
    """

    def __init__(self) -> None:
        self.files: dict[str, bytes] = {}
        self.versions: dict[str, str] = {}
        self.fault: Callable[[Handler, int], bool] = lambda handler, n: False
        self.requests: list[tuple[str, int, bool]] = []
        self.gives_parts, self.heeds_if_range, self.delay_s = True, True, 0.0
        self.if_range: list[str | None] = []
        self.active = self.busiest = 0
        self.lock = threading.Lock()
        self.server = ThreadingHTTPServer(("127.0.0.1", 0), type("Bound", (Handler,), {"host": self}))
        self.server.daemon_threads = True
        self.url = f"http://127.0.0.1:{self.server.server_address[1]}"
        self.thread = threading.Thread(target=self.server.serve_forever, kwargs={"poll_interval": 0.01})
        self.thread.start()

    def close(self) -> None:
        self.server.shutdown()
        self.thread.join()
        self.server.server_close()


class Handler(BaseHTTPRequestHandler):
    host: Host

    def log_message(self, format: str, *args: object) -> None:
        pass

    def do_GET(self) -> None:
        host = self.host
        asked = re.fullmatch(r"bytes=(\d+)-(\d+)", self.headers.get("Range", ""))
        with host.lock:
            n = len(host.requests)
            host.requests.append((self.path, int(asked[1]) if asked else 0, asked is not None))
            host.active += 1
            host.busiest = max(host.busiest, host.active)
        time.sleep(host.delay_s)
        with host.lock:  # before the answer: a client that has it may ask again at once
            host.active -= 1
        try:
            if not host.fault(self, n):
                self.answer()
        except (BrokenPipeError, ConnectionResetError):
            pass

    def answer(self, *, ends_after: int | None = None, length: int | None = None) -> None:
        """Answer as a good server, or end the connection after some bytes, or with another length in the header."""
        data = self.host.files.get(self.path)
        if data is None:
            return self.send_error(404)
        version = self.host.versions.get(self.path, '"1"')
        asked = re.fullmatch(r"bytes=(\d+)-(\d+)", self.headers.get("Range", ""))
        self.host.if_range.append(self.headers.get("If-Range"))
        is_same = not self.host.heeds_if_range or self.headers.get("If-Range", version) == version
        is_part = asked is not None and self.host.gives_parts and is_same
        begin, end = (int(asked[1]), min(int(asked[2]) + 1, len(data))) if asked and is_part else (0, len(data))
        if is_part and begin >= len(data):
            return self.send_error(416)
        self.send_response(206 if is_part else 200)
        self.send_header("ETag", version)
        self.send_header("Content-Length", str(end - begin if length is None else length))
        if is_part:
            self.send_header("Content-Range", f"bytes {begin}-{end - 1}/{len(data)}")
        self.end_headers()
        self.wfile.write(data[begin:end][:ends_after])
        return None

    def status(self, code: int, **headers: str) -> bool:
        self.send_response(code)
        for name, value in headers.items():
            self.send_header(name, value)
        self.send_header("Content-Length", "0")
        self.end_headers()
        return True


@pytest.fixture
def host() -> Iterator[Host]:
    host = Host()
    yield host
    host.close()


# --- data sets ---------------------------------------------------------------------------------------------


def zipped(files: dict[str, bytes]) -> bytes:
    buffer = io.BytesIO()
    with zipfile.ZipFile(buffer, "w") as file:
        for name, data in files.items():
            file.writestr(zipfile.ZipInfo(name, (2017, 1, 1, 0, 0, 0)), data)
    return buffer.getvalue()


def picture(seed: int) -> bytes:
    buffer = io.BytesIO()
    noise = random.Random(seed).randbytes(3 * 64 * 48)
    Image.frombytes("RGB", (64, 48), noise).save(buffer, "JPEG")
    return buffer.getvalue()


def coco_files(year: int = 2017) -> dict[str, dict[str, bytes]]:
    """Return the members of each archive of a small COCO."""
    prefix = {side: f"COCO_{side}2014_" if year == 2014 else "" for side in ("train", "val")}
    sides = {"train": range(8), "val": range(8, 12)}
    packed: dict[str, dict[str, bytes]] = {"annotations": {"annotations/instances_val2017.json": b"{}"}}
    for side, numbers in sides.items():
        names = {i: f"{prefix[side]}{i:012}.jpg" for i in numbers}
        packed[side] = {f"{side}{year}/{name}": picture(i) for i, name in names.items()}
        captions = [
            {"id": 2 * i + k, "image_id": i, "caption": f"picture {i} is seen , {k}"} for i in numbers for k in (0, 1)
        ]
        images = [{"id": i, "file_name": name} for i, name in names.items()]
        text = json.dumps({"images": images, "annotations": captions})
        packed["annotations"][f"annotations/captions_{side}{year}.json"] = text.encode()
    return packed


def small(archive: Archive, content: bytes, unpacked: int) -> Archive:
    return replace(archive, n_bytes=len(content), sha256=hashlib.sha256(content).hexdigest(), unpacked_bytes=unpacked)


def path_of(archive: Archive) -> str:
    return web.mirrored(archive.address, "http://host").removeprefix("http://host")


@pytest.fixture(autouse=True)
def quick(monkeypatch: pytest.MonkeyPatch) -> None:
    """Have pieces of a few kilobytes and no time to wait, and no proxy."""
    monkeypatch.setattr(download, "PIECE", PIECE)
    monkeypatch.setattr(download, "CHUNK", 1000)
    monkeypatch.setattr(download, "PROGRESS", 2000)
    monkeypatch.setattr(download, "FIRST_WAIT_S", 0.001)
    monkeypatch.setattr(web, "TIMEOUT_S", 5.0)
    for name in ("http_proxy", "https_proxy", "all_proxy", "HTTP_PROXY", "HTTPS_PROXY", "ALL_PROXY"):
        monkeypatch.delenv(name, raising=False)


@pytest.fixture
def coco(host: Host, monkeypatch: pytest.MonkeyPatch) -> dict[str, bytes]:
    """Serve a small COCO 2017, which the catalogue expects, and return its unpacked files."""
    packed = coco_files()
    archives = []
    for archive, side in zip(catalogue.DATA_SETS["coco2017"].archives, ("annotations", "val", "train"), strict=True):
        content = zipped(packed[side])
        host.files[path_of(archive)] = content
        archives.append(small(archive, content, sum(map(len, packed[side].values()))))
    changed = replace(catalogue.DATA_SETS["coco2017"], archives=tuple(archives))
    monkeypatch.setitem(catalogue.DATA_SETS, "coco2017", changed)
    whole = packed["annotations"] | packed["val"] | packed["train"]
    return {name: data for name, data in whole.items() if "instances" not in name}


TRAIN = "/zips/train2017.zip"


def run(*arguments: object, capsys: pytest.CaptureFixture[str]) -> tuple[int, str, str]:
    code = cli.run(["data", "fetch", *map(str, arguments)])
    captured = capsys.readouterr()
    assert "Traceback" not in captured.err
    return code, captured.out, captured.err


def fetched(folder: Path, host: Host, *arguments: object, capsys: pytest.CaptureFixture[str]) -> tuple[int, str, str]:
    return run("coco2017", folder, "--mirror", host.url, "--no-check", *arguments, capsys=capsys)


def files_below(folder: Path) -> dict[str, bytes]:
    """Return the files of a data set, without what the fetching keeps for itself."""
    paths = (path for path in folder.rglob("*") if path.is_file())
    found = {path.relative_to(folder).as_posix(): path.read_bytes() for path in paths}
    return {name: data for name, data in found.items() if name.startswith(("annotations/", "train", "val"))}


def everything(folder: Path) -> dict[str, bytes]:
    return {p.relative_to(folder).as_posix(): p.read_bytes() for p in folder.rglob("*") if p.is_file()}


def only_error(err: str) -> str:
    lines = err.splitlines()
    assert lines[-1].startswith("error: ")
    assert sum(line.startswith("error: ") for line in lines) == 1
    return lines[-1]


# --- the whole way -----------------------------------------------------------------------------------------


def test_a_data_set_is_fetched_verified_unpacked_checked_and_can_be_trained_on(
    tmp_path: Path, host: Host, coco: dict[str, bytes], capsys: pytest.CaptureFixture[str]
) -> None:
    code, out, _ = run("coco2017", tmp_path / "c", "--mirror", host.url, capsys=capsys)
    assert code == 0
    assert out.index("licence: captions CC BY 4.0") < out.index("to fetch: ") < out.index("24 of 12 images, 2 each")
    assert "12 can be used" in out
    following = f"img2seq init {tmp_path}/c/train2017 {tmp_path}/c/annotations/captions_train2017.json"
    assert out.endswith(f"next:\n  {following}\n")
    assert files_below(tmp_path / "c") == coco
    assert not list((tmp_path / "c").rglob("*.zip"))
    note = json.loads((tmp_path / "c/fetch-coco2017.json").read_text())
    train = catalogue.DATA_SETS["coco2017"].archives[2]
    assert note["files"]["train2017.zip"]["address"] == host.url + TRAIN
    assert note["files"]["train2017.zip"]["sha256"] == train.sha256
    assert note["files"]["train2017.zip"]["unpacked_files"] == 8
    assert cli.run([*following.split()[1:], "--output", str(tmp_path / "experiment.yaml")]) == 0


def test_the_same_command_once_more_asks_for_nothing_and_changes_nothing(
    tmp_path: Path, host: Host, coco: dict[str, bytes], capsys: pytest.CaptureFixture[str]
) -> None:
    fetched(tmp_path, host, capsys=capsys)
    before, n = everything(tmp_path), len(host.requests)
    code, out, _ = fetched(tmp_path, host, capsys=capsys)
    assert (code, len(host.requests), everything(tmp_path)) == (0, n, before)
    assert "to fetch: 0 bytes" in out
    (tmp_path / "train2017/000000000003.jpg").unlink()
    code, _, _ = fetched(tmp_path, host, capsys=capsys)  # what a person has removed comes back
    assert (code, everything(tmp_path)) == (0, before)
    assert {path for path, _, _ in host.requests[n:]} == {TRAIN}
    (tmp_path / "train2017/000000000003.jpg").write_bytes(b"cut")  # by whom is not known
    code, _, err = fetched(tmp_path, host, capsys=capsys)
    assert code == 2
    assert "000000000003.jpg: exists already with other content" in only_error(err)


def test_archives_are_kept_where_that_was_asked_for(
    tmp_path: Path, host: Host, coco: dict[str, bytes], capsys: pytest.CaptureFixture[str]
) -> None:
    fetched(tmp_path, host, "--keep-archives", capsys=capsys)
    fetched(tmp_path, host, capsys=capsys)
    assert (tmp_path / "archives/train2017.zip").read_bytes() == host.files[TRAIN]


def test_karpathys_split_comes_with_the_images_of_2014(
    tmp_path: Path, host: Host, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    packed = coco_files(2014)
    images = [
        {"filename": Path(name).name, "filepath": f"{side}2014", "cocoid": i, "split": split, "imgid": i,
         "sentids": [i], "sentences": [{"raw": f"picture {i} is seen .", "tokens": ["picture"], "imgid": i, "sentid": i}]}
        for side, split in (("train", "train"), ("val", "restval"))
        for i, name in enumerate(packed[side], start=0 if side == "train" else 8)
    ]  # fmt: skip
    splits = {
        "dataset_coco.json": json.dumps({"images": images, "dataset": "coco"}).encode(),
        "dataset_flickr8k.json": b"{}",
    }
    archives = []
    for archive, members in zip(
        catalogue.DATA_SETS["coco-karpathy"].archives, (splits, packed["val"], packed["train"]), strict=True
    ):
        host.files[path_of(archive)] = zipped(members)
        archives.append(small(archive, zipped(members), 10**6))
    changed = replace(catalogue.DATA_SETS["coco-karpathy"], archives=tuple(archives))
    monkeypatch.setitem(catalogue.DATA_SETS, "coco-karpathy", changed)
    code, out, err = run("coco-karpathy", tmp_path / "k", "--mirror", host.url, capsys=capsys)
    assert code == 0, err
    assert "12 can be used" in out
    assert not (tmp_path / "k/dataset_flickr8k.json").exists()
    assert 'Karpathy split "coco": 12 train images' in out
    assert out.endswith(f"next:\n  img2seq init {tmp_path}/k {tmp_path}/k/dataset_coco.json\n")


# --- what is said before anything is fetched ---------------------------------------------------------------


def test_names_sizes_and_licences_are_listed(capsys: pytest.CaptureFixture[str]) -> None:
    code, out, _ = run("--list", capsys=capsys)
    assert code == 0
    for part in ("coco2017", "20.4 GB", "CC BY 4.0", "coco-karpathy", "20.2 GB", "flickr8k", "forms.illinois.edu"):
        assert part in out


def test_a_dry_run_asks_nobody_and_writes_nothing(
    tmp_path: Path, host: Host, coco: dict[str, bytes], capsys: pytest.CaptureFixture[str]
) -> None:
    code, out, _ = fetched(tmp_path / "new", host, "--dry-run", capsys=capsys)
    assert (code, host.requests, list(tmp_path.iterdir())) == (0, [], [])
    assert host.url + TRAIN in out
    assert "licence: " in out


# What is typed, and what the one line of its error must say.
TYPED = {
    "coco2107 d": ["coco2017, coco-karpathy, flickr8k", "'coco2107'", "Did you mean 'coco2017'?"],
    "COCO2017 d": ["'COCO2017'", "Did you mean 'coco2017'?"],
    "flikr8k": ["Did you mean 'flickr8k'?"],
    "flickr8k d": ["flickr8k is not fetched", "may not be passed on", "https://forms.illinois.edu/sec/1713398"],
    "coco2017": ["expected NAME and DIR", "--list"],
    "": ["expected NAME and DIR", "--list"],
    "coco2017 d --connections 0": ["--connections", "1 to 16", "'0'"],
    "coco2017 d --mirror ftp://x/y": ["--mirror", "https://", "'ftp://x/y'"],
    "coco2017 d --mirror here": ["--mirror", "'here'"],
    "coco2017 d --mirorr http://x": ["Did you mean '--mirror'?"],
}


@pytest.mark.parametrize("typed", TYPED)
def test_a_wrong_word_is_one_sentence(
    typed: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.chdir(tmp_path)
    code, out, err = run(*typed.split(), capsys=capsys)
    assert (code, out, len(err.splitlines())) == (2, "", 1)
    for part in TYPED[typed]:
        assert part in only_error(err)
    assert not list(tmp_path.iterdir())


def test_a_disk_that_is_too_small_is_found_before_the_first_byte(
    tmp_path: Path,
    host: Host,
    coco: dict[str, bytes],
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
) -> None:
    archives = catalogue.DATA_SETS["coco2017"].archives
    # ZIP files are removed one by one: at most, all is unpacked and the last of them is still there.
    most = sum(a.unpacked_bytes for a in archives) + archives[-1].n_bytes
    free = most - 1
    monkeypatch.setattr("shutil.disk_usage", lambda path: type("Usage", (), {"free": free}))
    code, _, err = fetched(tmp_path / "new", host, capsys=capsys)
    assert (code, host.requests, list(tmp_path.iterdir())) == (2, [], [])
    assert "nothing was fetched" in only_error(err)
    free = most
    assert fetched(tmp_path / "new", host, capsys=capsys)[0] == 0


# --- bad servers that a second try helps against -------------------------------------------------------------


def times_before(handler: Handler, n: int) -> int:
    """Return how often the same bytes were asked for before."""
    requests = handler.host.requests
    return requests[:n].count(requests[n])


def drops(handler: Handler, n: int) -> bool:
    """End each connection before the first byte, then in the middle."""
    handler.answer(ends_after=(0, 1700)[times_before(handler, n)])
    return True


def is_busy(handler: Handler, n: int) -> bool:
    """Answer 500, then 503, then as asked."""
    n_times = times_before(handler, n)
    return handler.status(500 + 3 * n_times) if n_times < 2 else False


def says_too_much(handler: Handler, n: int) -> bool:
    """Promise more bytes than come."""
    if times_before(handler, n) or n % 2:
        return False
    handler.answer(length=10**9, ends_after=1700)
    return True


def resets(handler: Handler, n: int) -> bool:
    """End a connection hard (RST) where an answer is expected."""
    if times_before(handler, n):
        return False
    handler.connection.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, b"\1\0\0\0\0\0\0\0")
    handler.connection.close()
    return True


def talks_nonsense(handler: Handler, n: int) -> bool:
    if times_before(handler, n):
        return False
    handler.wfile.write(b"\0\1\2 nonsense\r\n\r\n")
    return True


def moved_on_this_host(handler: Handler, n: int) -> bool:
    """Redirect to another path of the same host."""
    if handler.path.startswith("/here"):
        handler.path = handler.path.removeprefix("/here")
        return False
    return handler.status(302, Location="/here" + handler.path)


WEATHER = [drops, is_busy, says_too_much, resets, talks_nonsense, moved_on_this_host]


@pytest.mark.parametrize("connections", [1, 4])
@pytest.mark.parametrize("fault", WEATHER)
def test_the_same_files_come_through_bad_weather(
    fault: Callable[[Handler, int], bool], connections: int, tmp_path: Path, host: Host, coco: dict[str, bytes],
    capsys: pytest.CaptureFixture[str],
) -> None:  # fmt: skip
    host.fault = fault
    code, _, err = fetched(tmp_path, host, "--connections", connections, capsys=capsys)
    assert code == 0, err
    assert files_below(tmp_path) == coco


def test_a_server_that_gives_no_parts_is_asked_for_the_whole(
    tmp_path: Path, host: Host, coco: dict[str, bytes], capsys: pytest.CaptureFixture[str]
) -> None:
    host.gives_parts = False
    dropped: list[int] = []

    def drops_once(handler: Handler, n: int) -> bool:
        if handler.path != TRAIN or n < 5 or dropped:
            return False
        dropped.append(n)
        handler.answer(ends_after=2 * PIECE)
        return True

    host.fault = drops_once
    code, _, err = fetched(tmp_path, host, capsys=capsys)
    assert code == 0, err
    assert "gives no parts of files" in err
    assert dropped
    assert files_below(tmp_path) == coco


def test_several_connections_are_used_and_no_more_than_asked_for(
    tmp_path: Path, host: Host, coco: dict[str, bytes], capsys: pytest.CaptureFixture[str]
) -> None:
    host.delay_s = 0.02
    for n in (3, 1):
        host.busiest = 0
        assert fetched(tmp_path / str(n), host, "--connections", n, capsys=capsys)[0] == 0
        assert host.busiest == n


@pytest.mark.parametrize("heeds_if_range", [True, False])
def test_a_file_that_changes_while_it_is_fetched_is_fetched_anew(
    heeds_if_range: bool, tmp_path: Path, host: Host, coco: dict[str, bytes], capsys: pytest.CaptureFixture[str]
) -> None:
    host.heeds_if_range = heeds_if_range
    right = host.files[TRAIN]
    host.files[TRAIN], host.versions[TRAIN] = bytes(len(right)), '"0"'
    asked: list[int] = []

    def changes(handler: Handler, n: int) -> bool:
        asked.extend([n] if handler.path == TRAIN else [])
        if len(asked) == 4:
            host.files[TRAIN], host.versions[TRAIN] = right, '"1"'
        return False

    host.fault = changes
    code, _, err = fetched(tmp_path, host, "--connections", 1, capsys=capsys)
    assert code == 0, err
    assert "has changed while it was fetched" in err
    assert files_below(tmp_path) == coco
    assert set(host.if_range) == {None, '"0"', '"1"'}


def test_a_file_that_never_stays_the_same_is_one_error(
    tmp_path: Path, host: Host, coco: dict[str, bytes], capsys: pytest.CaptureFixture[str]
) -> None:
    def changes(handler: Handler, n: int) -> bool:
        host.versions[handler.path] = f'"{n}"'
        return False

    host.fault = changes
    code, _, err = fetched(tmp_path, host, capsys=capsys)
    assert code == 2
    assert "was another each time" in only_error(err)


# --- bad servers that nothing helps against ------------------------------------------------------------------


def always(code: int, **headers: str) -> Callable[[Handler, int], bool]:
    return lambda handler, n: handler.status(code, **headers)


def other_part(handler: Handler, n: int) -> bool:
    if n == 0:
        return False
    handler.send_response(206)
    handler.send_header("Content-Range", f"bytes 1-2/{len(handler.host.files[handler.path])}")
    handler.end_headers()
    return True


def ends_at_once(handler: Handler, n: int) -> bool:
    handler.answer(ends_after=0)
    return True


def answers_a_page(handler: Handler, n: int) -> bool:
    """Be the page of a hotel's network."""
    handler.send_response(200)
    handler.send_header("Content-Length", "12")
    handler.end_headers()
    handler.wfile.write(b"please pay !")
    return True


def set_files(change: Callable[[bytes], bytes]) -> Callable[[Host], None]:
    return lambda host: host.files.update({path: change(data) for path, data in host.files.items()})


def set_fault(fault: Callable[[Handler, int], bool]) -> Callable[[Host], None]:
    return lambda host: setattr(host, "fault", fault)


# What is wrong with the server, and what the one line must say beside the address.
REFUSED: dict[str, tuple[Callable[[Host], None], list[str]]] = {
    "not there": (lambda host: host.files.clear(), ["404", "--mirror"]),
    "forbidden": (set_fault(always(403)), ["403 (Forbidden)", "--mirror"]),
    "always busy": (set_fault(always(500)), ["500"]),
    "another host": (set_fault(always(302, Location="http://localhost:9/zips/x.zip")), ["redirects to another host", "localhost:9", "--mirror"]),
    "in a circle": (set_fault(lambda h, n: h.status(302, Location=h.path)), ["redirects again and again"]),
    "too long": (set_files(lambda data: data + b"x"), ["expected a file of", "bytes, the server has"]),
    "too short": (set_files(lambda data: data[:-1]), ["expected a file of", "bytes, the server has"]),
    "empty": (set_files(lambda data: b""), ["the file is empty"]),
    "a page": (set_fault(answers_a_page), ["the server has 12", "a page stands in its place"]),
    "wrong bytes": (set_files(lambda data: data[:-9] + b"Y" + data[-8:]), ["expected the SHA-256", "nothing was unpacked"]),
    "another part": (set_fault(other_part), ["asked for the bytes from 0", "bytes 1-2/"]),
    "ends at once": (set_fault(ends_at_once), ["ended before the file did, 8 times in a row", "the same command continues"]),
}  # fmt: skip


@pytest.mark.parametrize("name", REFUSED)
def test_what_no_second_try_helps_against_is_one_sentence_with_the_address(
    name: str, tmp_path: Path, host: Host, coco: dict[str, bytes], capsys: pytest.CaptureFixture[str]
) -> None:
    change, parts = REFUSED[name]
    change(host)
    code, _, err = fetched(tmp_path, host, capsys=capsys)
    assert code == 2
    assert host.url + "/annotations/annotations_trainval2017.zip" in only_error(err)
    for part in parts:
        assert part in only_error(err)
    assert not files_below(tmp_path)
    assert len(host.requests) < 20  # tries are counted
    if "too" in name or "page" in name or "not there" in name:  # found before anything is written
        assert [path.name for path in (tmp_path / "archives").iterdir()] == [".lock"]


def test_a_connection_that_gives_little_each_time_is_used_as_long_as_it_gives_enough(
    tmp_path: Path,
    host: Host,
    coco: dict[str, bytes],
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
) -> None:
    monkeypatch.setattr(download, "PIECE", 10**6)
    few = download.PROGRESS // 4

    def gives(n_bytes: int) -> Callable[[Handler, int], bool]:
        def answer(handler: Handler, n: int) -> bool:
            handler.answer(ends_after=n_bytes)
            return True

        return answer

    host.fault = gives(few)
    code, _, err = fetched(tmp_path, host, capsys=capsys)
    assert code == 2
    assert "8 times in a row" in only_error(err)
    host.fault = gives(download.PROGRESS)
    code, _, err = fetched(tmp_path, host, capsys=capsys)
    assert code == 0, err
    assert len(host.files[TRAIN]) > download.TRIES * download.PROGRESS
    assert files_below(tmp_path) == coco


def closed_port() -> int:
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        port: int = free.getsockname()[1]
        return port


def test_no_server_at_all_is_one_sentence(
    tmp_path: Path, host: Host, coco: dict[str, bytes], capsys: pytest.CaptureFixture[str]
) -> None:
    for mirror, part in (
        ("http://nowhere.invalid", "the host nowhere.invalid cannot be found"),
        (f"http://127.0.0.1:{closed_port()}", "refuses the connection"),
        (host.url.replace("http:", "https:"), "no secure connection"),
    ):
        code, _, err = run("coco2017", tmp_path, "--mirror", mirror, capsys=capsys)
        assert code == 2
        assert part in only_error(err)
        assert mirror in only_error(err)
        assert len(err.splitlines()) == 1


@pytest.mark.skipif(shutil.which("openssl") is None, reason="makes a certificate with openssl")
def test_a_secure_connection_is_trusted_where_its_certificate_is_and_stays_secure(
    tmp_path: Path,
    host: Host,
    coco: dict[str, bytes],
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
) -> None:
    key, certificate = tmp_path / "key.pem", tmp_path / "certificate.pem"
    making = "openssl req -x509 -newkey ec -pkeyopt ec_paramgen_curve:prime256v1 -nodes -days 2 -subj /CN=x -addext subjectAltName=IP:127.0.0.1"
    subprocess.run([*making.split(), "-keyout", key, "-out", certificate], check=True, capture_output=True)
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
    context.load_cert_chain(certificate, key)
    host.server.handle_error = lambda *_: None  # type: ignore[method-assign]  # the client ends the handshake
    host.server.socket = context.wrap_socket(host.server.socket, server_side=True)
    mirror = host.url.replace("http:", "https:")
    first = f"{mirror}/annotations/annotations_trainval2017.zip"
    code, _, err = run("coco2017", tmp_path / "c", "--mirror", mirror, capsys=capsys)
    assert (code, len(err.splitlines())) == (2, 1)
    assert f"{first}: the server's certificate cannot be trusted: " in err
    monkeypatch.setenv("SSL_CERT_FILE", str(certificate))
    host.fault = lambda handler, n: handler.status(302, Location=f"{host.url}{handler.path}")
    code, _, err = run("coco2017", tmp_path / "c", "--mirror", mirror, capsys=capsys)
    assert (code, len(err.splitlines())) == (2, 1)
    assert f"{first}: redirects to a connection that is not secure, '{host.url}" in err
    host.fault = lambda handler, n: False
    assert run("coco2017", tmp_path / "c", "--mirror", mirror, "--no-check", capsys=capsys)[0] == 0
    assert files_below(tmp_path / "c") == coco


def test_a_server_that_falls_silent_is_left_in_the_end(
    tmp_path: Path,
    host: Host,
    coco: dict[str, bytes],
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
) -> None:
    monkeypatch.setattr(web, "TIMEOUT_S", 0.05)
    monkeypatch.setattr(download, "TRIES", 2)
    host.delay_s = 0.4
    code, _, err = fetched(tmp_path, host, capsys=capsys)
    assert code == 2
    assert "no answer within 0.05 s" in only_error(err)


# --- stopped at any time -------------------------------------------------------------------------------------

# A process of its own, with the small data set in its catalogue and pieces of a few kilobytes.
CHILD = """
import json, sys, time
from dataclasses import replace
from img2seq.cli import main as cli
from img2seq.datasets.fetch import catalogue, download, unpack
archives, piece, slow_s = json.loads(sys.argv[1])
archives = tuple(catalogue.Archive(*a[:3], tuple(a[3]), a[4]) for a in archives)
catalogue.DATA_SETS["coco2017"] = replace(catalogue.DATA_SETS["coco2017"], archives=archives)
download.PIECE, download.CHUNK = piece, 1000
write = unpack._write
def slowly(*arguments):
    write(*arguments)
    time.sleep(slow_s)
unpack._write = slowly
cli.main(sys.argv[2:])
"""


def child(folder: Path, host: Host, *arguments: str, slow_s: float = 0.0) -> subprocess.Popen[str]:
    archives = [astuple(archive) for archive in catalogue.DATA_SETS["coco2017"].archives]
    command = ["data", "fetch", "coco2017", str(folder), "--mirror", host.url, "--no-check", *arguments]
    return subprocess.Popen(
        [sys.executable, "-c", CHILD, json.dumps([archives, PIECE, slow_s]), *command],
        stdout=subprocess.DEVNULL, stderr=subprocess.PIPE, text=True, env={**os.environ, "no_proxy": "*"},
    )  # fmt: skip


def stop_when(process: subprocess.Popen[str], condition: Callable[[], bool], signum: int) -> tuple[int, str]:
    deadline = time.monotonic() + PATIENCE_S
    while not condition():
        assert process.poll() is None, "ended too soon"
        assert time.monotonic() < deadline
        time.sleep(0.002)
    process.send_signal(signum)
    _, err = process.communicate(timeout=PATIENCE_S)
    return process.returncode, err


@pytest.fixture
def uninterrupted(
    tmp_path: Path, host: Host, coco: dict[str, bytes], capsys: pytest.CaptureFixture[str]
) -> dict[str, bytes]:
    """Return all files that a command which is not stopped leaves."""
    assert fetched(tmp_path / "whole", host, capsys=capsys)[0] == 0
    host.requests.clear()
    return everything(tmp_path / "whole")


def finish(folder: Path, host: Host, whole: dict[str, bytes], capsys: pytest.CaptureFixture[str]) -> None:
    """Run the same command once more and compare what it leaves."""
    code, _, err = fetched(folder, host, capsys=capsys)
    assert code == 0, err
    assert everything(folder) == whole


@pytest.mark.parametrize("signum", [signal.SIGKILL, signal.SIGINT])
def test_a_process_that_was_stopped_while_it_fetched_is_continued(
    signum: int, tmp_path: Path, host: Host, uninterrupted: dict[str, bytes], capsys: pytest.CaptureFixture[str]
) -> None:
    n_pieces = -(-len(host.files[TRAIN]) // PIECE)

    def of_train() -> list[int]:
        return [begin for path, begin, _ in host.requests if path == TRAIN]

    half = n_pieces // 2
    is_stopped = threading.Event()

    def holds_the_rest(handler: Handler, n: int) -> bool:
        if len(of_train()) > half:  # however late a busy machine delivers the signal, it has not fetched everything
            is_stopped.wait(1.0)
        return False

    host.fault = holds_the_rest
    code, err = stop_when(child(tmp_path / "c", host, "--connections", "2"), lambda: len(of_train()) > half, signum)
    is_stopped.set()
    assert (tmp_path / "c/archives/train2017.zip.part").exists()
    if signum == signal.SIGINT:
        assert code == 130
        assert err.splitlines()[-2:] == ["what was fetched is kept: the same command continues", "interrupted"]
    else:
        assert code == -signal.SIGKILL
    host.requests.clear()
    finish(tmp_path / "c", host, uninterrupted, capsys)
    assert 1 < len(of_train()) < n_pieces - half + 4  # what was on its way, and the first question
    assert {path for path, _, _ in host.requests} == {TRAIN}


def test_a_process_that_was_killed_while_it_unpacked_is_continued(
    tmp_path: Path, host: Host, uninterrupted: dict[str, bytes], capsys: pytest.CaptureFixture[str]
) -> None:
    process = child(tmp_path / "c", host, slow_s=0.1)
    stop_when(process, lambda: len(list((tmp_path / "c/train2017").glob("*.jpg"))) > 2, signal.SIGKILL)
    before = {path: path.stat().st_mtime_ns for path in (tmp_path / "c/train2017").glob("*.jpg")}
    assert len(before) < 8
    host.requests.clear()
    finish(tmp_path / "c", host, uninterrupted, capsys)
    assert host.requests == []
    assert before == {path: path.stat().st_mtime_ns for path in before}


class _Killed(BaseException):
    pass


def test_stopped_before_any_change_on_disk_the_same_files_come_out(
    tmp_path: Path,
    host: Host,
    uninterrupted: dict[str, bytes],
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
) -> None:
    """Stop before the n-th rename or removal, for every n: what is there then is what a killed process leaves."""
    names = ("replace", "unlink")
    originals = {name: getattr(Path, name) for name in names}
    n_changes, stops_at = 0, 0

    def counted(name: str) -> Callable[..., Any]:
        def change(path: Path, *arguments: Any, **options: Any) -> Any:
            nonlocal n_changes
            if n_changes == stops_at:
                raise _Killed
            n_changes += 1
            return originals[name](path, *arguments, **options)

        return change

    for stops_at in range(200):
        folder, n_changes = tmp_path / f"c{stops_at}", 0
        with monkeypatch.context() as patch:
            for name in names:
                patch.setattr(Path, name, counted(name))
            try:
                fetched(folder, host, capsys=capsys)
            except _Killed:
                pass
            else:
                break
        finish(folder, host, uninterrupted, capsys)
    assert stops_at > 30


def test_what_was_fetched_of_another_version_is_not_continued(
    tmp_path: Path, host: Host, uninterrupted: dict[str, bytes], capsys: pytest.CaptureFixture[str]
) -> None:
    right = host.files[TRAIN]
    host.files[TRAIN], host.versions[TRAIN] = bytes(len(right)), '"0"'
    host.delay_s = 0.02
    stop_when(child(tmp_path / "c", host), lambda: sum(r[0] == TRAIN for r in host.requests) > 6, signal.SIGKILL)
    host.files[TRAIN], host.versions[TRAIN], host.delay_s = right, '"1"', 0.0
    host.requests.clear()
    finish(tmp_path / "c", host, uninterrupted, capsys)
    assert len(host.requests) == 1 + -(-len(right) // PIECE)  # once, from the beginning


def test_pieces_that_the_disk_has_lost_are_fetched_anew(
    tmp_path: Path, host: Host, uninterrupted: dict[str, bytes], capsys: pytest.CaptureFixture[str]
) -> None:
    """Be a power cut: the list says that pieces are there, the part has zeros."""
    host.delay_s = 0.02
    part = tmp_path / "c/archives/train2017.zip.part"
    stop_when(child(tmp_path / "c", host), lambda: sum(r[0] == TRAIN for r in host.requests) > 6, signal.SIGKILL)
    part.write_bytes(bytes(part.stat().st_size))
    host.delay_s = 0.0
    finish(tmp_path / "c", host, uninterrupted, capsys)


def test_a_list_of_pieces_that_was_cut_is_read_as_far_as_it_goes(tmp_path: Path) -> None:
    target = tmp_path / "x.zip"
    remote = download.Remote("http://h/x.zip", 10 * PIECE, '"1"', has_ranges=True)
    assert download._resume(remote, target) == set()
    journal = tmp_path / "x.zip.pieces"
    with journal.open("a") as file:
        file.write("3\n1\n12")  # of 12 or of 1 2...: nobody knows
    assert download._resume(remote, target) == {1, 3}
    assert journal.read_text().splitlines()[1:] == ["1", "3"]
    mirror = replace(remote, address="http://other/x.zip", validator='"2"')
    assert download._resume(mirror, target) == {1, 3}  # another host may give the rest
    assert download._resume(replace(mirror, validator='"3"'), target) == set()
    for garbage in ("", "\0\0", "[]\n1\n", '{"bytes": 1}\n1\n', "\n1\n"):
        journal.write_text(garbage)
        assert download._resume(remote, target) == set()


def test_two_processes_do_not_fetch_into_one_folder(
    tmp_path: Path, host: Host, coco: dict[str, bytes], capsys: pytest.CaptureFixture[str]
) -> None:
    host.delay_s = 0.3
    process = child(tmp_path, host)
    try:
        deadline = time.monotonic() + PATIENCE_S
        while not host.requests and time.monotonic() < deadline:
            time.sleep(0.002)
        code, _, err = fetched(tmp_path, host, capsys=capsys)
    finally:
        process.kill()
        process.communicate()
    assert code == 2
    assert "another process fetches into this folder" in only_error(err)


def test_what_another_process_has_fetched_meanwhile_is_not_fetched_again(
    tmp_path: Path, host: Host, coco: dict[str, bytes]
) -> None:
    planned = fetch.plan("coco2017", tmp_path, mirror=host.url)
    fetch.fetch(planned, QUIET)
    n = len(host.requests)
    fetch.fetch(planned, QUIET)
    assert len(host.requests) == n


# --- what a person has made ----------------------------------------------------------------------------------


@pytest.mark.parametrize("same_length", [False, True])
def test_other_files_stay_and_one_of_the_same_name_is_not_replaced(
    same_length: bool, tmp_path: Path, host: Host, coco: dict[str, bytes], capsys: pytest.CaptureFixture[str]
) -> None:
    mine = {"notes.txt": b"mine", "experiment.yaml": b"mine: 1\n", "train2017/holiday.jpg": b"mine"}
    same = {"train2017/000000000001.jpg": coco["train2017/000000000001.jpg"]}
    content = coco["train2017/000000000005.jpg"][:-1] + b"!" if same_length else b"mine"
    other = {"train2017/000000000005.jpg": content}
    for name, data in (mine | same | other).items():
        (tmp_path / name).parent.mkdir(exist_ok=True)
        (tmp_path / name).write_bytes(data)
    code, _, err = fetched(tmp_path, host, capsys=capsys)
    assert code == 2
    assert "train2017/000000000005.jpg: exists already with other content" in only_error(err)
    assert (tmp_path / "train2017/000000000005.jpg").read_bytes() == content
    (tmp_path / "train2017/000000000005.jpg").unlink()
    host.requests.clear()
    code, _, err = fetched(tmp_path, host, capsys=capsys)
    assert (code, host.requests) == (0, []), err
    for name, data in mine.items():
        assert (tmp_path / name).read_bytes() == data
    assert files_below(tmp_path) == coco | {"train2017/holiday.jpg": b"mine"}


def test_an_archive_that_a_person_has_already_is_used_or_left_alone(
    tmp_path: Path, host: Host, coco: dict[str, bytes], capsys: pytest.CaptureFixture[str]
) -> None:
    (tmp_path / "archives").mkdir()
    path = tmp_path / "archives/train2017.zip"
    for content, part in ((b"mine", "found 4 bytes"), (bytes(len(host.files[TRAIN])), "its SHA-256 is not")):
        path.write_bytes(content)
        code, _, err = fetched(tmp_path, host, capsys=capsys)
        assert (code, path.read_bytes()) == (2, content)
        assert part in only_error(err)
        assert "move it away" in only_error(err)
    path.write_bytes(host.files[TRAIN])
    download.part_of(path).write_bytes(b"what a stopped command had fetched")
    host.requests.clear()
    assert fetched(tmp_path, host, capsys=capsys)[0] == 0
    assert not download.part_of(path).exists()
    assert (host.requests, files_below(tmp_path)) == ([], coco)


def test_what_cannot_be_is_one_error_before_the_first_byte(
    tmp_path: Path, host: Host, coco: dict[str, bytes], capsys: pytest.CaptureFixture[str]
) -> None:
    (tmp_path / "file").write_text("mine")
    (tmp_path / "noted").mkdir()
    (tmp_path / "noted/fetch-coco2017.json").write_text('{"mine": 1}')
    for folder, part in (
        ("file", "expected a folder, found a file"),
        ("noted", "no data fetch has written it"),
        ("file/below", "file"),
    ):
        code, _, err = fetched(tmp_path / folder, host, capsys=capsys)
        assert (code, host.requests) == (2, [])
        assert part in only_error(err)
    assert (tmp_path / "noted/fetch-coco2017.json").read_text() == '{"mine": 1}'


def test_a_disk_that_is_full_after_all_is_one_error_and_costs_nothing(
    tmp_path: Path,
    host: Host,
    uninterrupted: dict[str, bytes],
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
) -> None:
    write, n = download._write, 0

    def full(*arguments: Any) -> None:
        nonlocal n
        n += 1
        if n == 30:
            raise DataError("x.part: cannot be written: No space left on device")
        write(*arguments)

    monkeypatch.setattr(download, "_write", full)
    code, _, err = fetched(tmp_path / "c", host, capsys=capsys)
    assert code == 2
    assert "No space left on device" in only_error(err)
    finish(tmp_path / "c", host, uninterrupted, capsys)

    def no_space(data: bytes) -> int:
        raise OSError(28, "No space left on device")

    with pytest.raises(DataError, match=r"x\.part: cannot be written: No space left on device"):
        write(no_space, b"x", Path("x.part"))


# --- archives that are not to be trusted -----------------------------------------------------------------------


def entry(name: str, data: bytes = b"x", mode: int = stat.S_IFREG | 0o644) -> tuple[zipfile.ZipInfo, bytes]:
    info = zipfile.ZipInfo(name.replace("\\", "?"))
    info.external_attr = mode << 16
    info.filename = info.orig_filename = name
    return info, data


def archive_of(path: Path, *entries: tuple[zipfile.ZipInfo, bytes], **changes: Any) -> Archive:
    with zipfile.ZipFile(path, "w", zipfile.ZIP_DEFLATED) as file:
        for info, data in entries:
            file.writestr(info, data, zipfile.ZIP_DEFLATED)
    return replace(Archive("http://h/x.zip", 1, "", ("t/*",), 1000), **changes)


GOOD = entry("t/good.jpg")
# Members beside a good one, and what the one error says.
DANGEROUS: dict[str, tuple[list[tuple[zipfile.ZipInfo, bytes]], str]] = {
    "up": ([entry("t/../../evil.jpg")], "leads out of its folder"),
    "up, not needed": ([entry("../evil.jpg")], "leads out of its folder"),
    "absolute": ([entry("/tmp/evil.jpg")], "has no plain name"),
    "of Windows": ([entry("t\\..\\..\\evil.jpg")], "has no plain name"),
    "of a drive": ([entry("C:evil.jpg")], "has no plain name"),
    "a stream": ([entry("t/x.jpg:evil")], "has no plain name"),
    "with a zero": ([entry("t/x\0.jpg")], "has no plain name"),
    "with a line break": ([entry("t/x\n.jpg")], "has no plain name"),
    "with dots": ([entry("t/./x.jpg")], "leads out of its folder"),
    "with empty parts": ([entry("t//x.jpg")], "leads out of its folder"),
    "a link": ([entry("t/link", b"/etc/passwd", stat.S_IFLNK | 0o777)], "is a link or a device"),
    "a link to a folder, then below it": ([entry("t/d", b"/tmp", stat.S_IFLNK | 0o777), entry("t/d/evil.jpg")], "is a link or a device"),
    "a device": ([entry("t/dev", b"", stat.S_IFCHR | 0o666)], "is a link or a device"),
    "twice": ([entry("t/x.jpg", b"a"), entry("t/x.jpg", b"b")], "is there twice"),
    "twice where case does not count": ([entry("t/x.jpg", b"a"), entry("t/X.JPG", b"b")], "is there twice"),
    "a bomb": ([entry("t/bomb.jpg", bytes(10**6))], "would unpack to 1.0 MB, more than 4.0 kB"),
}  # fmt: skip


@pytest.mark.filterwarnings("ignore:Duplicate name")
@pytest.mark.parametrize("name", DANGEROUS)
def test_of_a_dangerous_archive_nothing_is_unpacked(name: str, tmp_path: Path) -> None:
    members, part = DANGEROUS[name]
    archive = archive_of(tmp_path / "x.zip", GOOD, *members)
    with pytest.raises(DataError, match=part) as caught:
        unpack.unpack(archive, tmp_path / "x.zip", tmp_path / "a/b", QUIET)
    assert "nothing was unpacked" in str(caught.value)
    assert len(str(caught.value).splitlines()) == 1
    assert [path.name for path in tmp_path.iterdir()] == ["x.zip"]
    assert not Path("/tmp/evil.jpg").exists()


def test_of_an_encrypted_archive_nothing_is_unpacked(tmp_path: Path) -> None:
    archive = archive_of(tmp_path / "x.zip", GOOD, entry("t/secret.jpg"))
    content = bytearray((tmp_path / "x.zip").read_bytes())
    content[content.rindex(b"PK\1\2") + 8] |= 1  # the flag of the second member
    (tmp_path / "x.zip").write_bytes(content)
    with pytest.raises(DataError, match=r"'t/secret\.jpg' is encrypted; nothing was unpacked"):
        unpack.unpack(archive, tmp_path / "x.zip", tmp_path / "d", QUIET)
    assert not (tmp_path / "d").exists()


def test_an_archive_without_what_is_needed_is_one_error(tmp_path: Path) -> None:
    archive = archive_of(tmp_path / "x.zip", GOOD, members=("t/*.jpg", "captions.json"))
    with pytest.raises(DataError, match=r"expected captions\.json in it, found none"):
        unpack.unpack(archive, tmp_path / "x.zip", tmp_path / "d", QUIET)
    assert not (tmp_path / "d").exists()


def test_a_damaged_archive_is_one_error_and_leaves_no_half_file(tmp_path: Path) -> None:
    """Change any byte, or cut the file: what is unpacked is right, or it is an error; no member is there in part."""
    data = {f"t/{n}.jpg": random.Random(n).randbytes(40) for n in range(3)}
    archive = archive_of(tmp_path / "x.zip", *(entry(name, content) for name, content in data.items()))
    whole = (tmp_path / "x.zip").read_bytes()
    refused = 0
    changed = [whole[:i] + bytes([whole[i] ^ 0x41]) + whole[i + 1 :] for i in range(len(whole))]
    for n, content in enumerate([*changed, *(whole[:i] for i in range(0, len(whole), 7))]):
        path, folder = tmp_path / "y.zip", tmp_path / f"d{n}"
        path.write_bytes(content)
        try:
            unpack.unpack(archive, path, folder, QUIET)
        except DataError as error:
            refused += 1
            assert len(str(error).splitlines()) == 1
        left = {p.relative_to(folder).as_posix(): p.read_bytes() for p in folder.rglob("*") if p.is_file()}
        assert set(left.values()) <= set(data.values())
    assert refused > 150


def test_a_member_that_lies_about_its_length_is_not_unpacked(tmp_path: Path) -> None:
    archive = archive_of(tmp_path / "x.zip", entry("t/x.jpg", bytes(800)))
    content = (tmp_path / "x.zip").read_bytes()
    size = (800).to_bytes(4, "little")
    assert content.count(size) == 2
    for lie in (700, 900):
        (tmp_path / "x.zip").write_bytes(content.replace(size, lie.to_bytes(4, "little")))
        with pytest.raises(DataError, match="cannot be unpacked"):
            unpack.unpack(archive, tmp_path / "x.zip", tmp_path, QUIET)
        assert not list((tmp_path / "t").iterdir())


def test_a_file_has_its_name_only_when_it_is_whole(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    archive = archive_of(tmp_path / "x.zip", *(entry(f"t/{n}.jpg", bytes(100)) for n in range(3)))
    monkeypatch.setattr(unpack, "CHUNK", 10)
    read = zipfile.ZipExtFile.read
    lengths: set[int] = set()

    def looking(packed: zipfile.ZipExtFile, n: int | None = -1) -> bytes:
        lengths.update(path.stat().st_size for path in (tmp_path / "t").glob("*.jpg"))
        return read(packed, n)

    monkeypatch.setattr(zipfile.ZipExtFile, "read", looking)
    (tmp_path / "t").mkdir()
    (tmp_path / "t" / unpack.TEMPORARY).write_bytes(b"of a process that was killed")
    (tmp_path / "t/2.jpg").write_bytes(bytes(100))
    for _ in range(2):
        unpack.unpack(archive, tmp_path / "x.zip", tmp_path, QUIET)
        assert sorted(path.name for path in (tmp_path / "t").iterdir()) == ["0.jpg", "1.jpg", "2.jpg"]
        (tmp_path / "t" / unpack.TEMPORARY).write_bytes(b"of a process that was killed just before the end")
    assert lengths == {100}


def test_a_link_in_place_of_a_file_is_not_followed(tmp_path: Path) -> None:
    (tmp_path / "outside").write_bytes(b"mine")
    (tmp_path / "t").mkdir()
    (tmp_path / "t/good.jpg").symlink_to(tmp_path / "outside")
    archive = archive_of(tmp_path / "x.zip", GOOD)
    with pytest.raises(DataError, match="exists already with other content"):
        unpack.unpack(archive, tmp_path / "x.zip", tmp_path, QUIET)
    assert (tmp_path / "outside").read_bytes() == b"mine"


# --- the catalogue ---------------------------------------------------------------------------------------------


@pytest.mark.parametrize("name", catalogue.DATA_SETS)
def test_the_catalogue_is_complete(name: str) -> None:
    data_set: DataSet = catalogue.DATA_SETS[name]
    assert data_set.licence
    assert data_set.page.startswith("https://")
    assert bool(data_set.archives) != bool(data_set.why_not)
    for archive in data_set.archives:
        assert re.fullmatch(r"https?://[\w./-]+\.zip", archive.address)
        assert re.fullmatch(r"[0-9a-f]{64}", archive.sha256)
        assert archive.n_bytes > 10**6
    patterns = [pattern for archive in data_set.archives for pattern in archive.members]
    assert all(captions in patterns for captions in data_set.captions)
    assert all(f"{images}/*.jpg" in patterns for images in data_set.images)
