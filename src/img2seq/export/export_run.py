"""Write what captioning and serving need of a run, in a folder that is compared with the run before it takes its name."""

from __future__ import annotations

import shlex
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from img2seq.config.causal_lm import CausalLM
from img2seq.errors import RunError
from img2seq.export.embed import check_embed, embed_language_model
from img2seq.export.lean import compare_lean_run, write_lean_run
from img2seq.export.model_card import Said, write_model_card
from img2seq.export.pictures import pictures_of
from img2seq.export.target import check_target, new_folder
from img2seq.extras import FAST, require
from img2seq.inference.captioner import Captioner
from img2seq.progress import Announcer, counted
from img2seq.report.run_state import describe_evaluation, folder_size
from img2seq.run.captioning_folder import is_onnx_export
from img2seq.run.folder import open_run
from img2seq.run.hub import local_folder
from img2seq.run.onnx_folder import OnnxFolder, Precision
from img2seq.run.write import to_disk, write_json

LEAN_PICTURES = 8


def export_run(
    path: str | Path,
    target: str | Path,
    *,
    step: int | None = None,
    onnx: Sequence[Precision] = (),
    embed: bool = False,
    card: Said | None = None,
    overwrite: bool = False,
    announce: Announcer,
) -> str:
    """Write a run's best checkpoint, or that of a step, as a lean run or for ONNX Runtime; return what was written, with the next commands.

    Args:
        path: of the run.
        target: the folder to write.
        step: of the checkpoint, in place of the best one.
        onnx: precisions of the graphs for ONNX Runtime, "fp32" first; nothing for a lean run.
        embed: take along a language model that the run reads from elsewhere.
        card: what a person says of the model, which makes the folder ready for the hub.
        overwrite: replace an earlier export.
        announce: for progress.

    Raises:
        RunError: if the run cannot be loaded, the target holds anything else than an export (or an export, without `overwrite`), or
            cannot be written; or if what was written is not what the run holds.
        ConfigError: if there is no language model to take along.
        ModelError: if it is a run without one image input, which cannot caption; or has no graph.
    """
    if is_onnx_export(folder := local_folder(path)):
        raise RunError(f"{path}: is an export for ONNX Runtime already; export the run that it was made from")
    run, place = open_run(folder), Path(target)
    _check_apart(run.path, place)
    check_target(place, overwrite=overwrite)
    if onnx:
        require("export --onnx", FAST)
    captioner = Captioner.load(run.path, device="cpu", step=step)
    if embed:
        check_embed(captioner.trained.config.output.model)
    with new_folder(place, overwrite=overwrite, needed=lambda: _n_bytes(captioner)) as folder:
        done = (
            _write_onnx(captioner, folder, onnx, announce)
            if onnx
            else _write_lean(captioner, folder, announce, embed=embed)
        )
        if card is not None:
            done += write_model_card(folder, captioner.trained, card, name=place.absolute().name)
    checkpoint = captioner.trained.checkpoint
    lines = [
        f"{place}: step {checkpoint.step:,} of {run.path}, {describe_evaluation(checkpoint.state())}",
        f"  size: {folder_size(place)}; the run has {folder_size(run.path)}, {folder_size(checkpoint.path)} of it this checkpoint",
    ]
    return "\n".join([*lines, *done, *_next_commands(place)])


def _check_apart(run: Path, target: Path) -> None:
    """Raise RunError where an export would replace the run, or the export, that it is made from."""
    source, final = run.resolve(), target.resolve()
    if source == final or final in source.parents:
        raise RunError(f"{target}: holds {run}, which is to be exported; choose another folder")


def _n_bytes(captioner: Captioner) -> int:
    return sum(tensor.nbytes for tensor in captioner.trained.model.state_dict().values())


def _write_lean(captioner: Captioner, folder: Path, announce: Announcer, *, embed: bool) -> list[str]:
    trained, decoder = captioner.trained, captioner.trained.config.output.model
    write_lean_run(trained, folder, announce)
    done = []
    if isinstance(decoder, CausalLM) and not decoder.is_kept_whole:
        if embed:
            embed_language_model(trained, folder)
        else:
            done = [f"  it reads its language model from {decoder.pretrained}; --embed takes it along"]
    compared = compare_lean_run(captioner, folder, pictures_of(captioner, LEAN_PICTURES, announce))
    return [*done, f"  verified: {compared}"]


def _write_onnx(captioner: Captioner, folder: Path, precisions: Sequence[Precision], announce: Announcer) -> list[str]:
    from img2seq.export.onnx_files import write_onnx_files
    from img2seq.export.parity import PICTURES, compare_onnx

    write_onnx_files(captioner.trained, OnnxFolder(folder), precisions, announce)
    report = compare_onnx(captioner, folder, precisions, pictures_of(captioner, PICTURES, announce), announce)
    write_json(OnnxFolder(folder).parity, report)
    to_disk(folder)
    return [
        f"  compared on {counted(report['pictures'], 'picture')} ({report['of']}):",
        *(_line(report, p) for p in precisions),
    ]


def _line(report: dict[str, Any], precision: Precision) -> str:
    found, run = report[precision], report["run"]
    equal = found["equal_captions"]
    parts = [
        f"{found['bytes'] / 1e6:.1f} MB",
        f"captions equal {equal['greedy']:.1%} greedy, {equal['beam_5']:.1%} with 5 beams",
        f"logits within {found['largest_logit_difference']:.1g}",
        f"one picture {found['one_picture_s'] * 1000:.0f} ms (torch {run['one_picture_s'] * 1000:.0f})",
    ]
    if "cider_d" in found:
        before, after = run["cider_d"]["beam_5"], found["cider_d"]["beam_5"]
        parts.append(f"CIDEr-D {after:.4f} ({after - before:+.4f})")
    return f"    {precision}: {'; '.join(parts)}"


def _next_commands(target: Path) -> list[str]:
    folder = shlex.quote(str(target))
    return ["next:", f"  img2seq caption {folder} PHOTOGRAPHS", f"  img2seq serve {folder}"]
