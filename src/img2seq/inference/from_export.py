"""An export for ONNX Runtime that captions: without torch."""

from __future__ import annotations

from pathlib import Path
from typing import Any

from img2seq.errors import ConfigError, RunError, shown
from img2seq.generation.onnx_step import OnnxDecoder
from img2seq.inference.loaded import Loaded
from img2seq.inference.onnx_model import OnnxModel
from img2seq.model.onnx_session import OnnxSession
from img2seq.run.onnx_folder import OnnxFacts, OnnxFolder, Precision, read_facts, read_onnx_tokenizer, read_signed


def captioning_export(path: Path, *, device: str, step: int | None, precision: Precision = "fp32") -> Loaded:
    """Load an export.

    Raises:
        RunError: if it is incomplete, damaged, or its parts do not fit together.
        ConfigError: for another device than the CPU.
    """
    folder = OnnxFolder(path)
    if device not in ("auto", "cpu"):
        raise ConfigError(f"device: an export computes on the CPU; expected cpu or auto, found {shown(device)}")
    read_signed(folder, folder.config)
    facts = read_facts(folder)
    if step not in (None, facts.step):
        raise RunError(f"{path}: is an export of step {facts.step:,}; there is no other step in it")
    tokenizer = read_onnx_tokenizer(folder, facts)
    if len(tokenizer) != facts.vocabulary:
        raise RunError(f"{folder.tokenizer}: expected {facts.vocabulary:,} tokens, found {len(tokenizer):,}")
    if precision != "fp32" and not folder.decoder(precision).exists():
        raise RunError(f"{path}: was exported without --{precision}")
    takes, gives = encoder_shapes(facts)
    encoder = _session(folder, folder.encoder(precision), takes, gives, exact=False)
    takes, gives = decoder_shapes(facts)
    decoder = _session(folder, folder.decoder(precision), takes, gives, exact=True)
    return Loaded(
        path=path,
        output_name=facts.output_name,
        step=facts.step,
        n_parameters=facts.n_parameters,
        decoding_defaults=facts.decoding_defaults,
        tokenizer=tokenizer,
        specs={facts.input_name: facts.spec},
        precision=precision,
        model=OnnxModel(
            encoder, OnnxDecoder.of(decoder, facts.n_layers, facts.n_heads, facts.n_heads * facts.head_width, facts.most_tokens), mean=facts.mean, std=facts.std,
            memory_shape=(2 * facts.n_layers * facts.n_heads * facts.head_width, facts.n_places)
        ),
    )  # fmt: skip


def encoder_shapes(facts: OnnxFacts) -> tuple[dict[str, list[Any]], dict[str, list[Any]]]:
    """Return what the encoder's graph must take and give; None where any size must do."""
    memory = [
        None,
        2 * facts.n_layers * facts.n_heads * facts.head_width,
        facts.n_places,
    ]  # as `model/onnx_decoder.py` says
    return {"pixel_values": [None, len(facts.mean), facts.height, facts.width]}, {"last_hidden_state": memory}


def decoder_shapes(facts: OnnxFacts) -> tuple[dict[str, list[Any]], dict[str, list[Any]]]:
    """Return what the decoder's graph must take and give."""
    _, memory = encoder_shapes(facts)
    kept = [None, facts.n_heads, None, facts.head_width]
    takes = {"input_ids": [None, None], "encoder_hidden_states": [*memory["last_hidden_state"][:2], None]}
    gives = {"logits": [None, None, facts.vocabulary]}
    return (
        takes | {f"past_key_values.{name}": kept for name in facts.kept},
        gives | {f"present.{name}": kept for name in facts.kept},
    )


def _session(
    folder: OnnxFolder, path: Path, takes: dict[str, list[Any]], gives: dict[str, list[Any]], *, exact: bool
) -> OnnxSession:
    """Return a graph. Raises RunError unless it has these inputs and outputs; only an encoder's, which is traced, may leave sizes open."""
    data = read_signed(folder, path)
    try:
        session = OnnxSession(data)
    except Exception as error:  # the runtime has many kinds
        raise RunError(f"{path}: cannot be loaded by ONNX Runtime: {str(error).splitlines()[0]}") from error
    for name, kind in session.types.items():
        if kind != (expected_kind := "tensor(int64)" if name == "input_ids" else "tensor(float)"):
            raise RunError(
                f"{path}: not the graph of {folder.config.name}: {shown(name)} is a {kind}; expected {expected_kind}"
            )
    for kind, expected, found in (("takes", takes, session.inputs), ("gives", gives, session.outputs)):
        if set(found) != set(expected):
            raise RunError(
                f"{path}: not the graph of {folder.config.name}: {kind} {shown(_names(found))}; expected {_names(expected)}"
            )
        for name, shape in expected.items():
            fits = len(shape) == len(found[name]) and all(
                size is None or size == other or (not exact and not isinstance(other, int))
                for size, other in zip(shape, found[name], strict=True)
            )
            if not fits:
                raise RunError(
                    f"{path}: not the graph of {folder.config.name}: {name} has the shape {found[name]}; expected {shape}"
                )
    return session


def _names(shapes: dict[str, Any]) -> str:
    names = list(shapes)
    return ", ".join(names[:4]) + (f" and {len(names) - 4} more" if len(names) > 4 else "")
