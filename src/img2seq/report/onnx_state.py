"""The state of an export for ONNX Runtime, for `img2seq runs show` and `runs verify`."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import Any

from img2seq.config.decoding import Decoding
from img2seq.errors import Img2SeqError, RunError, shown
from img2seq.run.folder import read_json
from img2seq.run.onnx_folder import OnnxFolder, digests_of, read_facts, read_onnx_tokenizer, read_signed


def describe_onnx_export(path: Path, *, size: str) -> str:
    """Return an export's state on one screen. Raises RunError if its files cannot be read."""
    folder = OnnxFolder(path)
    facts, report = read_facts(folder), read_json(folder.parity)
    try:
        equal = {name: found["equal_captions"] for name, found in report.items() if name in ("fp32", "fp16", "int8")}
        compared = f"on {report['pictures']:,} pictures ({shown(str(report['of']))})"
        lines = {
            f"{name} equal": f"{of['greedy']:.1%} greedy, {of['beam_5']:.1%} with 5 beams" for name, of in equal.items()
        }
    except (LookupError, TypeError, ValueError, AttributeError) as error:
        raise RunError(f"{folder.parity}: not what an export writes there: {error!r}") from error
    rows: dict[str, Any] = {
        "state": "exported for ONNX Runtime: to caption and to serve with, not to train on",
        "made from": f"step {facts.step:,} of {shown(facts.run)}",
        "model": f"{facts.n_parameters:,} parameters; pictures of {facts.height} x {facts.width} pixels",
        "vocabulary": f"{facts.vocabulary:,} tokens; captions of at most {min(Decoding.of(facts.decoding_defaults).max_length, facts.most_tokens):,}",
        **({"decoding": in_words(facts.decoding)} if facts.decoding else {}),
        "compared": compared,
        **lines,
        "size": f"{size} on disk",
    }
    return "\n".join([str(path), *(f"  {name:<12}{text}" for name, text in rows.items())])


def in_words(decoding: Mapping[str, Any]) -> str:
    """Return settings on one line."""
    return ", ".join(f"{name} {value}" for name, value in decoding.items())


def verify_onnx_export(path: Path) -> tuple[str, bool]:
    """Return what was found in each file that captioning depends on, and whether all of it is whole."""
    folder = OnnxFolder(path)
    lines, whole = [], True
    try:
        names = set(digests_of(folder))
    except Img2SeqError as error:
        return f"{path}\n  BAD  {folder.export.name}\n       {error}", False
    for file in [
        *folder.needed,
        *(f for f in folder.all_variants if f.relative_to(path).as_posix() in names or f.exists()),
    ]:
        name = file.relative_to(path).as_posix()
        try:
            read_signed(folder, file)
            if file == folder.tokenizer:
                read_onnx_tokenizer(folder, read_facts(folder))
        except Img2SeqError as error:
            whole = False
            lines.append(f"  BAD  {name}\n       {error}")
        else:
            lines.append(f"  ok   {name}")
    return "\n".join([str(path), *lines]), whole
