"""What the Containerfile promises, as far as it can be known without a container engine. `tests/container_root.py` runs its commands."""

from __future__ import annotations

import http.server
import shlex
import subprocess
import sys
import threading
import tomllib
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
import yaml

from children import free_port
from conftest import ROOT
from containerfile import CONTAINERFILE, OF_EXPORTS, Stage, stages
from img2seq.cli import main as cli

PROJECT: dict[str, Any] = tomllib.loads((ROOT / "pyproject.toml").read_text(encoding="utf-8"))["project"]


@pytest.fixture
def served() -> Stage:
    """Return the stage that is run."""
    return stages()[-1]


@pytest.mark.parametrize("path", [CONTAINERFILE, OF_EXPORTS])
def test_one_stage_builds_and_the_other_runs_what_it_built(path: Path) -> None:
    build, served = stages(path)
    assert (build.base, build.name) == (served.base, "build")
    assert all("/opt/img2seq/" in f"{line}/" for line in build.lines("RUN"))
    assert served.lines("COPY") == ["--from=build /opt/img2seq /opt/img2seq"]
    assert served.lines("RUN") == []
    for copied in build.lines("COPY"):
        *sources, _ = copied.split()
        assert [source for source in sources if not (ROOT / source).exists()] == []
    ignored = (ROOT / ".dockerignore").read_text(encoding="utf-8").splitlines()
    assert {f"!{source}" for copied in build.lines("COPY") for source in copied.split()[:-1]} <= set(ignored)


def test_an_image_of_exports_differs_in_what_is_installed_alone() -> None:
    (build, served), (small, as_served) = stages(), stages(OF_EXPORTS)
    assert as_served == served
    with_torch, without = ([line for line in stage.lines("RUN") if "torch" in line] for stage in (build, small))
    assert (len(with_torch), without) == (3, [])
    assert [shlex.split(line)[-1] for line in small.lines("RUN") if "pip install" in line] == [".[serve]"]


def test_it_installs_what_the_project_names() -> None:
    installs = [shlex.split(line) for line in stages()[0].lines("RUN") if "pip install" in line]
    wanted = [word for words in installs for word in words if not word.startswith(("-", "/", "https:"))]
    torch = [name for name in PROJECT["optional-dependencies"]["train"] if name.startswith("torch")]
    assert wanted == ["install", *torch, "install", ".[serve,train]"]
    assert "serve" in PROJECT["optional-dependencies"]
    for words in installs:
        assert words[words.index("--extra-index-url") + 1] == "https://download.pytorch.org/whl/cpu"
    python = stages()[0].base.partition(":")[2].removesuffix("-slim")
    assert f"Programming Language :: Python :: {python}" in PROJECT["classifiers"]


def test_it_runs_as_nobody_and_listens_where_it_says(served: Stage) -> None:
    (user,) = served.lines("USER")
    assert all(int(number) > 999 for number in user.split(":"))
    command = [*served.words("ENTRYPOINT"), *served.words("CMD")]
    assert command[0] == "img2seq"
    known, _ = cli.parse(command[1:])
    assert (known.host, [str(known.port)]) == ("0.0.0.0", served.lines("EXPOSE"))
    assert known.runs == served.words("CMD")


class Answers(http.server.BaseHTTPRequestHandler):
    status = 200

    def do_GET(self) -> None:
        self.send_response(self.status if self.path == "/ready" else 404)
        self.end_headers()

    def log_message(self, *_: object) -> None:
        pass


@pytest.fixture
def port() -> Iterator[int]:
    server = http.server.ThreadingHTTPServer(("127.0.0.1", 0), Answers)
    thread = threading.Thread(target=server.serve_forever)
    thread.start()
    yield server.server_address[1]
    server.shutdown()
    thread.join()
    server.server_close()


def test_the_health_check_knows_a_server_that_is_ready(
    served: Stage, port: int, monkeypatch: pytest.MonkeyPatch
) -> None:
    def healthy(at: int) -> bool:
        program, *rest = served.healthcheck
        assert program == "python"
        command = [sys.executable, *(word.replace("8000", str(at)) for word in rest)]
        return subprocess.run(command, capture_output=True, timeout=30, check=False).returncode == 0

    monkeypatch.setenv("http_proxy", "http://127.0.0.1:9")  # of a company's network: not for the container itself
    assert f"'127.0.0.1', {served.lines('EXPOSE')[0]}" in " ".join(served.healthcheck)
    assert healthy(port)
    monkeypatch.setattr(Answers, "status", 503)
    assert not healthy(port)
    assert not healthy(free_port())


def test_the_examples_agree_with_the_server_and_with_each_other(served: Stage) -> None:
    folder = ROOT / "examples/serving"
    unit = (folder / "img2seq.service").read_text(encoding="utf-8")
    (line,) = [line for line in unit.splitlines() if line.startswith("ExecStart=")]
    known, _ = cli.parse(shlex.split(line)[1:])
    assert known.host == "127.0.0.1"
    nginx = (folder / "nginx.conf").read_text(encoding="utf-8")
    assert f"server 127.0.0.1:{known.port};" in nginx
    assert f"client_max_body_size {known.max_bytes};" in nginx
    deployment, *_ = yaml.safe_load_all((folder / "kubernetes.yaml").read_text(encoding="utf-8"))
    pod = deployment["spec"]["template"]["spec"]
    (container,) = pod["containers"]
    inside, _ = cli.parse([*served.words("ENTRYPOINT")[1:], *container["args"]])
    assert container["ports"] == [{"name": "http", "containerPort": inside.port}]
    assert pod["securityContext"]["runAsUser"] == int(served.lines("USER")[0].split(":")[0])
    assert pod["terminationGracePeriodSeconds"] > inside.timeout_s
    assert {container[f"{name}Probe"]["httpGet"]["path"] for name in ("startup", "readiness", "liveness")} == {
        "/ready",
        "/health",
    }
