"""What an audit of a data set found, as a table to read, as JSON, and as an exit code."""

from __future__ import annotations

import contextlib
import statistics
from collections import Counter
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Literal

from img2seq.data.sources.content import read_json
from img2seq.errors import DataError, listed

FORMAT = "img2seq-data-check"
SHOWN = 5  # places of each kind in the table; the JSON has all
BARS, BAR_WIDTH = 12, 40

Severity = Literal["left out", "warning", "error"]
EXIT_CODES: dict[Severity, int] = {"left out": 0, "warning": 1, "error": 2}
# What training leaves out and lists under `on_bad_data: skip`, see build/prepare.py.
SKIPPED = {"bad-row", "broken-image", "missing-image", "id-clash", "refused-file", "content-leak", "unknown-split-id"}


@dataclass(frozen=True)
class Finding:
    """Something to be put right (error), to be looked at (warning) or that training leaves out, with a line for each place."""

    severity: Severity
    code: str
    what: str
    entries: list[str]


@dataclass
class Audit:
    """What a data set holds, by topic, and what was found wrong with it.

    Attributes:
        figures: by topic.
        findings: in the order in which they were made.
        notes: what was read, and how.
        max_broken_share: of an experiment with on_bad_data: skip, else None. Then what training leaves out is no error.
    """

    figures: dict[str, Any] = field(default_factory=dict)
    findings: list[Finding] = field(default_factory=list)
    notes: list[str] = field(default_factory=list)
    max_broken_share: float | None = None

    def add(self, severity: Severity, code: str, what: str, entries: Iterable[str]) -> None:
        if lines := list(entries):
            if code in SKIPPED and self.max_broken_share is not None:
                severity = "left out"
            self.findings.append(Finding(severity, code, what, lines))

    @property
    def exit_code(self) -> int:
        """0 clean, or training leaves out all that was found; 1 warnings, 2 errors."""
        return max((EXIT_CODES[finding.severity] for finding in self.findings), default=0)

    def to_json(self) -> dict[str, Any]:
        """Return figures and findings as plain data, every place of every finding among them."""
        severity = max((f.severity for f in self.findings), key=EXIT_CODES.__getitem__, default="clean")
        found = [
            {"severity": f.severity, "code": f.code, "what": f.what, "count": len(f.entries), "entries": f.entries}
            for f in self.findings
        ]
        return {
            "format": FORMAT,
            "version": 1,
            "severity": severity,
            "findings": found,
            "notes": self.notes,
            **self.figures,
        }

    def table(self) -> str:
        """Return what a person reads: the figures by topic, then what was found, errors first, and what training will do."""
        lines = [*self.notes, ""] if self.notes else []
        for topic, figures in self.figures.items():
            if topic == "images":
                lines += [line for name, of_input in figures.items() for line in _images(name, of_input)]
            else:
                lines += _TOPICS[topic](figures)
        for finding in sorted(self.findings, key=lambda finding: -EXIT_CODES[finding.severity]):
            lines += [
                "",
                f"{finding.severity}: {len(finding.entries):,} {finding.what}:",
                listed(finding.entries, most=SHOWN),
            ]
        n = Counter(finding.severity for finding in self.findings)
        kinds = [f"{n[s]} kind(s) of {s}" for s in ("error", "warning") if n[s]]
        if n["left out"]:
            kinds.append(f"{n['left out']} kind(s) that training leaves out and lists (on_bad_data: skip)")
        return "\n".join([*lines, "", ", ".join(kinds) if kinds else "clean: nothing was found wrong"])


def check_replaceable(path: Path) -> None:
    """Raise DataError for a file that no check has written: it may be the data itself."""
    if path.exists():
        with contextlib.suppress(DataError):
            content = read_json(path)
            if isinstance(content, dict) and content.get("format") == FORMAT:
                return
        raise DataError(f"{path}: exists already, and no data check has written it; give --json another name")


def _row(topic: str, text: str) -> str:
    return f"{topic:<11} {text}"


def _captions(figures: Mapping[str, Any]) -> list[str]:
    each = figures["captions_per_image"]
    several = f"{each['min']} to {each['max']}" if each["min"] < each["max"] else f"{each['min']}"
    text = f"{figures['captions']:,} of {figures['images']:,} images, {several} each"
    return [_row("captions", f"{text}, in {', '.join(figures['tables'])}")]


def _images(name: str, figures: Mapping[str, Any]) -> list[str]:
    lines = [
        _row(
            name[:11],
            f"{figures['files']:,} files, {figures['bytes'] / 1e6:,.1f} MB, in {', '.join(figures['folders'])}",
        )
    ]
    lines.append(_row("", f"{figures['usable']:,} can be used"))
    if figures["without_caption"]:
        lines[-1] += f"; {figures['without_caption']:,} have no caption"
    for what in ("formats", "modes"):
        lines.append(_row("", f"{what}: {', '.join(f'{key} {n:,}' for key, n in figures[what].items())}"))
    sides = [
        f"{side} {s['min']} to {s['max']}, median {s['median']:g}"
        for side in ("width", "height")
        if (s := figures[side])
    ]
    return [*lines, _row("", f"pixels: {'; '.join(sides)}")]


def _split(figures: Mapping[str, Any]) -> list[str]:
    test = f", {figures['test']:,} test images" if figures["test"] else ""
    return [_row("split", f"{figures['train']:,} training images, {figures['valid']:,} validation images{test}")]


def _vocabulary(figures: Mapping[str, Any]) -> list[str]:
    known = [f"{share:.1%} of {side} tokens" for side, share in figures["known_share"].items() if share is not None]
    lines = [_row("vocabulary", f"{figures['tokens']:,} (min_freq: {figures['min_freq']}) knows {', '.join(known)}")]
    if unknown := [f"{word} {n}" for word, n in list(figures["unknown"].items())[:8]]:
        lines.append(_row("", f"unknown most often: {', '.join(unknown)}"))
    return lines


def _lengths(figures: Mapping[str, Any]) -> list[str]:
    text = f"mean {figures['mean']:.4g}, 95 % within {figures['p95']}, longest {figures['max']}"
    lines = [_row("lengths", f"tokens: {text}; max_length {figures['max_length']} cuts {figures['cut_share']:.1%}")]
    counted = {int(n): count for n, count in figures["histogram"].items()}
    width = -(-(max(counted) + 1) // BARS)
    bars = [sum(counted.get(n, 0) for n in range(first, first + width)) for first in range(0, max(counted) + 1, width)]
    for number, count in enumerate(bars):
        first, last = number * width, (number + 1) * width - 1
        name = f"{first}" if width == 1 else f"{first}-{last}"
        lines.append(_row("", f"{name:>9} {count:>9,} {'#' * round(BAR_WIDTH * count / max(bars))}".rstrip()))
    return lines


_TOPICS = {"captions": _captions, "split": _split, "vocabulary": _vocabulary, "lengths": _lengths}


def counts(values: Iterable[str], *, most: int | None = None) -> dict[str, int]:
    return dict(Counter(values).most_common(most))


def spread(values: Sequence[int]) -> dict[str, float]:
    """Return least, median, mean, that which 95 % do not exceed, and most."""
    if not values:
        return {}
    ordered = sorted(values)
    p95 = ordered[min(len(ordered) - 1, int(0.95 * len(ordered)))]
    middle = {"median": statistics.median(ordered), "mean": statistics.fmean(ordered)}
    return {"min": ordered[0], **middle, "p95": p95, "max": ordered[-1]}
