"""Build what the Containerfile builds, without a container engine, and run it as the container would.

    python tests/container_root.py FOLDER EXPORT PICTURE [--file examples/serving/Containerfile]

Runs the RUN lines of the Containerfile with this machine's Python, /opt/img2seq and /src being folders of FOLDER (some minutes and
several GB), then its ENTRYPOINT as its USER on a read-only root with a /tmp of its own (Linux, as root, for `unshare`), asks its
HEALTHCHECK, captions a picture, ends it with SIGTERM, and prints sizes and times. It listens on
127.0.0.1 alone here. What it cannot show: the base image, and the wheels of the extra index where that is not reached; then pip takes what
else it finds (PIP_CONSTRAINT names a CPU build on disk), and where that is for GPUs, the line that expects the CPU build is told and left out.
"""

from __future__ import annotations

import argparse
import json
import os
import shlex
import shutil
import signal
import subprocess
import sys
import time
import urllib.request
from pathlib import Path

sys.path.insert(0, str(Path(__file__).parent))
from conftest import ROOT
from containerfile import CONTAINERFILE, Stage, stages

PATIENCE_S = 120.0
CPU_CHECK = "torch.version.cuda is None"
# A namespace of mounts: all of it read-only, then a /tmp of memory, as `docker run --read-only --tmpfs /tmp`.
READ_ONLY = (
    "mount --make-rprivate / && mount -o remount,bind,ro / && mount -t tmpfs -o size=16m tmpfs /tmp && "
    'exec setpriv --reuid {uid} --regid {gid} --clear-groups --no-new-privs --bounding-set=-all "$@"'
)


def main() -> None:
    """Build, run, ask, end; exit code 1 if anything is not as it should be."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    for name in ("folder", "export", "picture"):
        parser.add_argument(name, type=Path)
    parser.add_argument("--built", action="store_true", help="FOLDER was built before")
    parser.add_argument("--file", type=Path, default=CONTAINERFILE, help="the Containerfile")
    given = parser.parse_args()
    folder, (build, served) = given.folder.absolute(), stages(given.file)
    if not given.built:
        build_root(build, folder)
    size(folder / "opt/img2seq")
    run_root(served, folder, given.export.absolute(), given.picture.absolute())


def build_root(build: Stage, folder: Path) -> None:
    """Do what the first stage says."""
    folder.mkdir(parents=True)
    where = folder
    environment = {k: v for k, v in os.environ.items() if not k.startswith(("PYTHON", "VIRTUAL"))}
    environment["PATH"] = f"{Path(sys.base_prefix) / 'bin'}:{os.environ['PATH']}"
    for keyword, rest in build.instructions:
        print(f"\n{keyword} {rest}", flush=True)
        if keyword == "WORKDIR":
            where = folder / rest.lstrip("/")
            where.mkdir(parents=True)
        elif keyword == "COPY":
            *sources, target = rest.split()
            for source in sources:
                to = where / target
                if (ROOT / source).is_dir():
                    shutil.copytree(ROOT / source, to, ignore=shutil.ignore_patterns("__pycache__"))
                else:
                    shutil.copy(ROOT / source, to)
        else:
            assert keyword == "RUN"
            began = time.monotonic()
            done = subprocess.run(
                ["sh", "-c", rest.replace("/opt/img2seq", shlex.quote(f"{folder}/opt/img2seq"))],
                cwd=where, env=environment, check=False,
            )  # fmt: skip
            if done.returncode and CPU_CHECK in rest:
                print("NOT SHOWN: the extra index was not reached, this is another build of torch")
            elif done.returncode:
                sys.exit(f"failed with exit code {done.returncode}")
            print(f"({time.monotonic() - began:.0f} s)")


def size(environment: Path) -> None:
    """Print how large the environment is, with and without what only a GPU uses."""
    packages = next(environment.glob("lib/python*/site-packages"))
    total, of_gpu = _megabytes(environment), sum(_megabytes(packages / name) for name in ("nvidia", "triton"))
    of_gpu += sum(path.stat().st_size for path in packages.glob("torch/lib/*cuda*")) // 1_000_000
    print(f"\n{environment}: {total:,} MB, {of_gpu:,} MB of it for GPUs alone")


def _megabytes(folder: Path) -> int:
    return sum(path.lstat().st_size for path in folder.rglob("*") if path.is_file()) // 1_000_000


def run_root(served: Stage, folder: Path, export: Path, picture: Path) -> None:
    """Do what the second stage says, and what a person would then do."""
    uid, gid = served.lines("USER")[0].split(":")
    environment = {k: v.replace("/opt/img2seq", f"{folder}/opt/img2seq") for k, v in served.environment.items()}
    environment["PATH"] = environment["PATH"].replace("$PATH", "/usr/sbin:/usr/bin:/sbin:/bin")
    inside = ["unshare", "--mount", "sh", "-c", READ_ONLY.format(uid=uid, gid=gid), "sh"]
    entrypoint = [
        str(folder / "opt/img2seq/bin/img2seq"),
        *served.words("ENTRYPOINT")[1:],
        "--host",
        "127.0.0.1",
        str(export),
    ]
    check = [str(folder / "opt/img2seq/bin/python"), *served.healthcheck[1:]]
    print(shlex.join(entrypoint), flush=True)
    began = time.monotonic()
    server = subprocess.Popen([*inside, *entrypoint], env=environment)
    try:
        while subprocess.run([*inside, *check], env=environment, check=False, capture_output=True).returncode:
            assert server.poll() is None, "the server has ended"
            assert time.monotonic() - began < PATIENCE_S, "not ready"
            time.sleep(0.1)
        print(f"ready, by its health check, after {time.monotonic() - began:.1f} s")
        status = Path(f"/proc/{server.pid}/status").read_text()
        print(
            "\n".join(line for line in status.splitlines() if line.startswith(("Uid", "CapEff", "NoNewPrivs", "VmRSS")))
        )
        request = urllib.request.Request(
            "http://127.0.0.1:8000/caption", data=picture.read_bytes(), headers={"Content-Type": "image/jpeg"}
        )
        with urllib.request.urlopen(request, timeout=60) as answer:
            print(json.loads(answer.read())["captions"][0]["text"])
        server.send_signal(signal.SIGTERM)
        assert server.wait(60) == 0, server.returncode
        print("ended by SIGTERM with exit code 0")
    finally:
        if server.poll() is None:
            server.kill()
        server.wait()


if __name__ == "__main__":
    main()
