"""Write an export for ONNX Runtime: graphs and the settings that other programs read, under the names they look for.

Who reads what: docs/export.md. Every number is written from one place, `OnnxFacts` and the tokenizer, so that no two files disagree.
"""

from __future__ import annotations

import hashlib
from collections.abc import Sequence
from dataclasses import asdict
from pathlib import Path
from typing import Any

from img2seq import __version__
from img2seq.build.trained import TrainedRun
from img2seq.config.decoding import Decoding
from img2seq.data.image import ImageSpec
from img2seq.data.tokenizer import BOS, EOS, PAD, Tokenizer
from img2seq.data.tokenizers_json import to_tokenizers, tokenizer_config
from img2seq.errors import ModelError
from img2seq.export.precision import in_precision
from img2seq.inference.from_run import longest_trained, own_decoding
from img2seq.model.onnx_decoder import decoder_graph
from img2seq.model.onnx_encoder import encoder_graph
from img2seq.model.weights import first_line
from img2seq.progress import Announcer
from img2seq.run.onnx_folder import FORMAT_VERSION, SECTION, OnnxFacts, OnnxFolder, Precision
from img2seq.run.write import to_disk, write_json, write_text

README = Path(__file__).with_name("readme_onnx.txt")
IDS = {"decoder_start_token_id": BOS, "bos_token_id": BOS, "eos_token_id": EOS, "pad_token_id": PAD}


def write_onnx_files(
    trained: TrainedRun, folder: OnnxFolder, precisions: Sequence[Precision], announce: Announcer
) -> None:
    """Write all files of an export but the report of its comparison, and return when they have reached the disk.

    Raises:
        ModelError: for a model that has no graph, or one larger than such a file can be.
    """
    facts = onnx_facts(trained)
    folder.graphs.mkdir(parents=True)
    write_text(folder.readme, README.read_text(encoding="utf-8"))
    write_json(folder.config, _config(facts))
    write_json(folder.generation, _generation_config(facts, trained.tokenizer))
    write_json(folder.preprocessor, _preprocessor_config(facts.spec, facts))
    write_text(folder.tokenizer, to_tokenizers(trained.tokenizer))
    write_json(folder.tokenizer_config, tokenizer_config(trained.tokenizer, max_length=facts.most_tokens))
    with announce.bar("writing graphs", len(precisions)) as advance:
        encoder, decoder = _graphs(trained, facts.input_name)
        for precision in precisions:
            for path, graph in ((folder.encoder(precision), encoder), (folder.decoder(precision), decoder)):
                path.write_bytes(in_precision(graph, precision))
                to_disk(path)
            advance(1)
    digests = {
        path.relative_to(folder.path).as_posix(): hashlib.sha256(path.read_bytes()).hexdigest()
        for path in folder.signed
    }
    made_from = {"run": facts.run, "step": facts.step, "valid_loss": trained.checkpoint.valid_loss}
    write_json(folder.export, {"format": FORMAT_VERSION, "img2seq": __version__, **made_from, "sha256": digests})
    for place in (folder.graphs, folder.path):
        to_disk(place)


def onnx_facts(trained: TrainedRun) -> OnnxFacts:
    """Return what an export says of a run."""
    (name, spec), *_ = trained.specs.items()
    decoder = trained.model.own_decoder
    return OnnxFacts(
        run=trained.run.name,
        step=trained.checkpoint.step,
        n_parameters=sum(parameter.numel() for parameter in trained.model.parameters()),
        input_name=name,
        height=spec.height,
        width=spec.width,
        mode=spec.mode,
        resize_approach=spec.resize_approach,
        max_pixels=spec.max_pixels,
        max_bytes=spec.max_bytes,
        mean=trained.facts.normalization[name]["mean"],
        std=trained.facts.normalization[name]["std"],
        output_name=trained.config.output.output_info.output_name,
        max_length=longest_trained(trained).get("max_length"),
        most_tokens=decoder.n_positions - 1,
        vocabulary=len(trained.tokenizer),
        n_layers=len(decoder.blocks),
        n_heads=decoder.n_heads,
        head_width=decoder.width // decoder.n_heads,
        n_places=trained.model.encoder(name).n_places,
        tokenizer_digest=trained.tokenizer.digest,
        decoding=own_decoding(trained),
    )


def _config(facts: OnnxFacts) -> dict[str, Any]:
    """Return config.json, as transformers and transformers.js read it; of `decoder`, how many layers and how wide."""
    width = facts.n_heads * facts.head_width
    decoder = {
        "model_type": "gpt2",
        "n_layer": facts.n_layers,
        "n_head": facts.n_heads,
        "n_embd": width,
        "n_positions": facts.most_tokens + 1,
    }
    return {
        "model_type": "vision-encoder-decoder",
        "architectures": ["VisionEncoderDecoderModel"],
        "is_encoder_decoder": True,
        **IDS,
        "vocab_size": facts.vocabulary,
        "encoder": {
            "model_type": "img2seq",
            "image_size": [facts.height, facts.width],
            "num_channels": len(facts.mean),
        },
        "decoder": {**decoder, "vocab_size": facts.vocabulary, "is_decoder": True, "add_cross_attention": True},
        "transformers.js_config": {"dtype": "fp32"},
        SECTION: asdict(facts),
    }


def _generation_config(facts: OnnxFacts, tokenizer: Tokenizer) -> dict[str, Any]:
    """Return generation_config.json; its lengths count the start token."""
    longest = min(Decoding.of(facts.decoding_defaults).max_length, facts.most_tokens)
    never = list(tokenizer.special.never_generated)
    return {**IDS, "max_length": longest + 1, "suppress_tokens": never, "bad_words_ids": [[token] for token in never]}


def _preprocessor_config(spec: ImageSpec, facts: OnnxFacts) -> dict[str, Any]:
    """Return preprocessor_config.json. Pillow's resize is meant, with its filter widened where a picture shrinks."""
    size, crops = {"height": spec.height, "width": spec.width}, spec.resize_approach != "resize"
    large_height, large_width = spec.with_margin()
    return {
        "image_processor_type": "ViTImageProcessor",
        "do_convert_rgb": True,
        "do_resize": True,
        "size": {"height": large_height, "width": large_width} if crops else size,
        "resample": 2,
        **({"do_center_crop": True, "crop_size": size} if crops else {}),
        "do_rescale": True,
        "rescale_factor": 1 / 255,
        "do_normalize": True,
        "image_mean": facts.mean,
        "image_std": facts.std,
    }


def _graphs(trained: TrainedRun, input_name: str) -> tuple[bytes, bytes]:
    """Return the graphs of encoder and decoder."""
    try:
        return encoder_graph(trained.model, input_name), decoder_graph(trained.model.own_decoder, merged=True)
    except Exception as error:  # exporters raise whatever they like
        raise ModelError(
            f"{trained.run.path}: this model cannot be written as an ONNX graph: {first_line(error)}"
        ) from error
