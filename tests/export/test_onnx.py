"""`img2seq export --onnx`: captions are the run's without torch, others read the files, and a damaged or hostile folder is one error."""

from __future__ import annotations

import hashlib
import importlib.util
import json
import shutil
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import onnx
import pytest
from onnx import TensorProto, helper, numpy_helper

from conftest import ROOT
from img2seq import Captioner
from img2seq.cli import main as cli
from img2seq.data.tokenizer import Tokenizer
from img2seq.data.tokenizers_json import to_tokenizers, tokenizer_config
from img2seq.errors import ConfigError, Img2SeqError, ModelError, RunError
from img2seq.export import onnx_files, parity
from img2seq.export.export_run import export_run
from img2seq.export.pictures import pictures_of
from img2seq.inference.predictor import Caption
from img2seq.model import onnx_decoder
from img2seq.progress import Announcer
from img2seq.run.folder import read_json
from img2seq.run.onnx_folder import SECTION, OnnxFolder
from servers import serving
from test_without_torch import in_the_core

QUIET = Announcer(level="critical", bars=False)
SETTINGS: dict[str, dict[str, Any]] = {
    "unasked": {},
    "greedy": {"method": "greedy"},
    "n-best": {"beam_size": 4, "n_best": 3, "length_penalty": 0.5},
    "groups": {"beam_size": 4, "beam_groups": 2, "diversity": 0.5, "n_best": 4},
    "sampling": {"method": "sample", "seed": 3, "temperature": 1.5, "n_best": 3},
    "penalties": {"no_repeat_ngram": 2, "repetition_penalty": 1.5, "min_length": 6},
    "beginning": {"beginning": "a"},
}


@pytest.fixture
def own_export(exported: Path, tmp_path: Path) -> Path:
    """Return a copy of the export, to change."""
    return Path(shutil.copytree(exported, tmp_path / "export"))


@pytest.fixture
def pictures(images: Path) -> list[str]:
    return sorted(map(str, images.glob("*.png")))[:12]


def same(expected: Caption, found: Caption) -> None:
    assert (found.text, found.tokens) == (expected.text, expected.tokens)
    assert found.token_log_probabilities == pytest.approx(expected.token_log_probabilities, abs=1e-4)
    assert len(found.alternatives) == len(expected.alternatives)
    for one, other in zip(expected.alternatives, found.alternatives, strict=True):
        same(one, other)


# --- captions


@pytest.mark.parametrize("settings", SETTINGS.values(), ids=SETTINGS.keys())
def test_its_captions_are_the_runs(settings: dict[str, Any], run: Path, exported: Path, pictures: list[str]) -> None:
    expected, found = (Captioner.load(path).caption(pictures, **settings) for path in (run, exported))
    for one, other in zip(expected, found, strict=True):
        same(one, other)


def test_a_prepared_run_writes_the_same(run: Path, pictures: list[str], speed_ups_on: None) -> None:
    slow, fast = Captioner.load(run), Captioner.load(run)
    assert fast.prepare_for_many()
    for settings in SETTINGS.values():
        for one, other in zip(slow.caption(pictures, **settings), fast.caption(pictures, **settings), strict=True):
            same(one, other)


def test_the_report_says_how_it_was_compared(run: Path, exported: Path) -> None:
    report = read_json(exported / "parity.json")
    assert report["of"] == "the validation split"
    assert report["pictures"] == len(read_json(run / "split.json")["valid"])
    assert report["fp32"]["equal_captions"] == {"greedy": 1.0, "beam_5": 1.0}
    assert report["fp32"]["largest_logit_difference"] < 1e-3 < report["int8"]["largest_logit_difference"]
    assert report["int8"]["bytes"] < report["fp16"]["bytes"] < report["fp32"]["bytes"]
    assert report["fp32"]["cider_d"] == pytest.approx(report["run"]["cider_d"])
    for precision in ("fp16", "int8"):
        folder = OnnxFolder(exported)
        assert report[precision]["bytes"] == sum(
            place(precision).stat().st_size for place in (folder.encoder, folder.decoder)
        )
        assert Captioner.load(exported, precision=precision).caption(np.zeros((8, 8, 3), np.uint8)).text


def test_without_torch_it_captions_scores_and_serves(
    run: Path, exported: Path, images: Path, pictures: list[str], tmp_path: Path
) -> None:
    texts = tmp_path / "captions.csv"
    captions = run.parent / "captions.csv"
    of: list[str | Path] = ["--captions", captions, "--images", images, "--output", tmp_path / "scores"]
    done = in_the_core(
        ["caption", exported, *pictures, "--output", texts, "--html", tmp_path / "page.html"],
        ["evaluate", exported, *of],
        ["evaluate", str(exported)],
    )
    assert [one.code for one in done] == [0, 0, 2], done
    assert "holds no split; give --captions FILE --images FOLDER" in done[2].err
    cli.run(["caption", str(run), *pictures, "--output", str(tmp_path / "of_run.csv")])
    assert texts.read_text() == (tmp_path / "of_run.csv").read_text()
    cli.run(["evaluate", str(run), *map(str, of[:4]), "--output", str(tmp_path / "scores of the run")])
    found, expected = (read_json(tmp_path / name / "metrics.json") for name in ("scores", "scores of the run"))
    names = ("bleu_4", "cider_d", "rouge_l", "images", "step")
    assert {name: found[name] for name in names} == {name: expected[name] for name in names}


def test_it_is_served(run: Path, exported: Path, pictures: list[str], tmp_path: Path) -> None:
    with serving(tmp_path, exported) as served:
        data = Path(pictures[0]).read_bytes()
        answer = served.post("/caption", content=data, headers={"Content-Type": "image/png"})
        about = served.get("/info").json()["models"][0]
    expected = Captioner.load(run)
    assert answer.json()["captions"][0]["text"] == expected.caption(pictures[0]).text
    assert about["step"] == expected.trained.checkpoint.step
    assert about["vocabulary_size"] == len(expected.loaded.tokenizer)


def test_the_plain_script_captions(exported: Path, pictures: list[str]) -> None:
    spec = importlib.util.spec_from_file_location("script", ROOT / "examples/onnx/caption.py")
    assert spec is not None
    assert spec.loader is not None
    script = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(script)
    captioner = Captioner.load(exported)
    for picture in pictures:
        assert script.caption(exported, picture) == captioner.caption(picture, method="greedy").text


def test_every_file_says_the_same_ids(exported: Path) -> None:
    config, generation = (read_json(exported / f"{name}.json") for name in ("config", "generation_config"))
    ids = ("bos_token_id", "eos_token_id", "pad_token_id", "decoder_start_token_id")
    vocabulary = read_json(exported / "tokenizer.json")["model"]["vocab"]
    tokens = read_json(exported / "tokenizer_config.json")
    assert {name: config[name] for name in ids} == {name: generation[name] for name in ids}
    for role in ("bos", "eos", "pad"):
        assert vocabulary[tokens[f"{role}_token"]] == config[f"{role}_token_id"]


def test_a_script_that_writes_several_tokens_at_once_is_answered(exported: Path, pictures: list[str]) -> None:
    """What comes after a given beginning does not depend on whether it is given at once or token by token."""
    decoder = onnx_session(exported)
    facts = read_json(exported / "config.json")[SECTION]
    states = np.random.default_rng(0).standard_normal((2, 2 * facts["n_layers"] * facts["n_heads"] * facts["head_width"], facts["n_places"]))  # fmt: skip
    names = [f"{n}.{kind}" for n in range(facts["n_layers"]) for kind in ("key", "value")]
    nothing = np.zeros((2, facts["n_heads"], 0, facts["head_width"]), np.float32)
    tokens = np.array([[0, 7, 8, 6], [0, 9, 5, 7]])
    feeds = {"encoder_hidden_states": states.astype(np.float32)}
    together, *_ = decoder.run(
        ["logits"], {**feeds, "input_ids": tokens, **{f"past_key_values.{n}": nothing for n in names}}
    )
    past = dict.fromkeys(names, nothing)
    for column in range(tokens.shape[1]):
        given = {f"past_key_values.{name}": values for name, values in past.items()}
        outputs = ["logits", *(f"present.{name}" for name in names)]
        logits, *kept = decoder.run(outputs, {**feeds, "input_ids": tokens[:, column : column + 1], **given})
        past = dict(zip(names, kept, strict=True))
        np.testing.assert_allclose(logits[:, 0], together[:, column], atol=1e-4)


def onnx_session(folder: Path) -> Any:
    import onnxruntime

    return onnxruntime.InferenceSession(folder / "onnx/decoder_model_merged.onnx")


# --- writing


def test_captions_that_differ_are_no_export(run: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    real = onnx_decoder.decoder_graph

    def wrong(decoder: Any, *, merged: bool) -> bytes:
        model = onnx.load_from_string(real(decoder, merged=merged))
        (bias,) = (tensor for tensor in model.graph.initializer if tensor.name == "bias")
        values = numpy_helper.to_array(bias).copy()
        values[-1] += 30
        bias.CopyFrom(numpy_helper.from_array(values, "bias"))
        return bytes(model.SerializeToString())

    monkeypatch.setattr(onnx_files, "decoder_graph", wrong)
    with pytest.raises(RunError, match=r"not exported: \d+ captions of \d+ differ from the run's; the export writes"):
        export_run(run, tmp_path / "export", onnx=("fp32",), announce=QUIET)
    assert list(tmp_path.iterdir()) == []


def test_a_model_without_a_graph_is_one_error(run: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def fails(*_: object) -> bytes:
        raise RuntimeError("no such operator\nand a long graph")

    monkeypatch.setattr(onnx_files, "encoder_graph", fails)
    with pytest.raises(ModelError, match=r"cannot be written as an ONNX graph: no such operator$"):
        export_run(run, tmp_path / "export", onnx=("fp32",), announce=QUIET)
    assert list(tmp_path.iterdir()) == []


def test_without_the_pictures_it_is_compared_on_samples(
    own_run: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    (own_run / "split.json").write_text('{"train": [], "valid": ["gone"]}')
    (own_run / "digests.json").unlink()
    export_run(own_run, tmp_path / "export", onnx=("fp32",), announce=Announcer(bars=False))
    assert read_json(tmp_path / "export/parity.json")["of"] == "the run's samples"
    (line,) = [line for line in capsys.readouterr().err.splitlines() if "the run's samples" in line]
    assert "validation" in line


def test_captions_in_several_files_have_their_pictures_compared(own_run: Path) -> None:
    config = own_run / "config.yaml"
    config.write_text(config.read_text().replace("captions.csv", "captions.cs[v]"))
    (own_run / "digests.json").unlink()
    assert pictures_of(Captioner.load(own_run), 8, QUIET).where == "the validation split"


def test_what_is_exported_is_never_replaced_by_its_export(exported: Path, run: Path, tmp_path: Path) -> None:
    export_run(run, tmp_path / "lean", announce=QUIET)
    before = {path: path.read_bytes() for path in (tmp_path / "lean").rglob("*") if path.is_file()}
    for target in (tmp_path / "lean", tmp_path, tmp_path / "lean/../lean"):
        with pytest.raises(RunError, match="which is to be exported; choose another folder"):
            export_run(tmp_path / "lean", target, onnx=("fp32",), overwrite=True, announce=QUIET)
    assert before == {path: path.read_bytes() for path in (tmp_path / "lean").rglob("*") if path.is_file()}
    with pytest.raises(RunError, match="is an export for ONNX Runtime already; export the run"):
        export_run(exported, tmp_path / "again", announce=QUIET)


def test_a_caption_that_ties_may_be_another(run: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    one = Caption("a dog", -3.0, ("a", "dog"), (-1.0, -2.0))
    tied, other = (
        replace(one, tokens=("a", "cat"), log_probability=-3.00001),
        replace(one, tokens=("a", "cat"), log_probability=-3.1),
    )
    assert parity._share_equal_but_for_ties([one, one], [tied, one]) == 1
    assert parity._share_equal_but_for_ties([one, one], [other, one]) == 0.5


def test_variants_need_the_graphs(run: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert cli.run(["export", str(run), str(tmp_path / "export"), "--int8"]) == 2
    assert "--int8: is a variant of --onnx" in capsys.readouterr().err


# --- reading what is damaged or hostile


def signed_again(folder: Path) -> None:
    """Write digests of what is there now, as whoever makes a hostile folder does."""
    export = read_json(folder / "export.json")
    export["sha256"] = {name: hashlib.sha256((folder / name).read_bytes()).hexdigest() for name in export["sha256"]}
    (folder / "export.json").write_text(json.dumps(export))


def with_facts(**changes: Any) -> Callable[[Path], None]:
    def change(folder: Path) -> None:
        config = read_json(folder / "config.json")
        config[SECTION] |= changes
        (folder / "config.json").write_text(json.dumps(config))

    return change


def with_graph(which: str, change: Callable[[onnx.ModelProto], None]) -> Callable[[Path], None]:
    def write(folder: Path) -> None:
        path = folder / f"onnx/{which}.onnx"
        model = onnx.load(path)
        change(model)
        path.write_bytes(model.SerializeToString())

    return write


def outside(model: onnx.ModelProto) -> None:
    """Let the first large tensor be in a file beyond the folder."""
    tensor = max(model.graph.initializer, key=lambda tensor: len(tensor.raw_data))
    tensor.ClearField("raw_data")
    tensor.data_location = TensorProto.EXTERNAL
    tensor.external_data.add(key="location", value="../../secret.bin")


def another_width(model: onnx.ModelProto) -> None:
    model.graph.input[0].CopyFrom(
        helper.make_tensor_value_info("pixel_values", TensorProto.FLOAT, ["batch_size", 3, 7, 7])
    )


def another_name(model: onnx.ModelProto) -> None:
    for node in model.graph.node:
        for n, name in enumerate(node.output):
            if name == "logits":
                node.output[n] = "answers"
    (output,) = (output for output in model.graph.output if output.name == "logits")
    output.name = "answers"


def without_graphs(folder: Path) -> None:
    (folder / "onnx/decoder_model_merged.onnx").unlink()


def another_tokenizer(folder: Path) -> None:
    tokens = read_json(folder / "tokenizer.json")["model"]["vocab"]
    other = Tokenizer([*list(tokens)[:5], *(f"{token}x" for token in list(tokens)[5:])], split_on=" ")
    (folder / "tokenizer.json").write_text(to_tokenizers(other))
    config = tokenizer_config(other, max_length=read_json(folder / "tokenizer_config.json").get("model_max_length"))
    (folder / "tokenizer_config.json").write_text(json.dumps(config))


def without_numbers(model: onnx.ModelProto) -> None:
    (bias,) = (tensor for tensor in model.graph.initializer if tensor.name == "bias")
    bias.CopyFrom(numpy_helper.from_array(np.full(numpy_helper.to_array(bias).shape, np.nan, np.float32), "bias"))


def whole_pixels(model: onnx.ModelProto) -> None:
    shape = [dim.dim_param or dim.dim_value for dim in model.graph.input[0].type.tensor_type.shape.dim]
    model.graph.input[0].CopyFrom(helper.make_tensor_value_info("pixels", TensorProto.INT64, shape))
    model.graph.input[0].name = "pixel_values"
    model.graph.node.insert(0, helper.make_node("Cast", ["pixel_values"], ["as_floats"], to=TensorProto.FLOAT))
    for node in list(model.graph.node)[1:]:
        for n, name in enumerate(node.input):
            if name == "pixel_values":
                node.input[n] = "as_floats"


HOSTILE: dict[str, tuple[Callable[[Path], object], str]] = {
    "weights outside": (with_graph("decoder_model_merged", outside), r"decoder_model_merged\.onnx: cannot be loaded"),
    "encoder's weights outside": (with_graph("encoder_model", outside), r"encoder_model\.onnx: cannot be loaded"),
    "other pixels": (with_graph("encoder_model", another_width), r"encoder_model\.onnx: not the graph of config\.json: pixel_values"),
    "another output": (with_graph("decoder_model_merged", another_name), r"decoder_model_merged\.onnx: not the graph.*gives 'answers"),
    "more layers": (with_facts(n_layers=9), r"not the graph of config\.json"),
    "more words": (with_facts(vocabulary=9999), r"tokenizer\.json: expected 9,999 tokens"),
    "another head": (with_facts(head_width=64), r"not the graph of config\.json"),
    "enormous": (with_facts(height=10**12), r"config\.json: height: expected 1 to 4,096"),
    "no sense": (with_facts(std=[0.0, 1.0, 1.0]), r"config\.json: mean, std"),
    "text for a number": (with_facts(width="12"), r"config\.json: not the configuration of an export: width"),
    "tokenizer of another run": (another_tokenizer, r"tokenizer\.json: not the tokenizer this model was trained with"),
    "no section": (lambda folder: (folder / "config.json").write_text("{}"), r"config\.json: not the configuration of an export: img2seq"),
    "no finite mean": (with_facts(mean=[float("nan")] * 3), r"config\.json: (mean, std|not the configuration)"),
    "endless captions": (with_facts(max_length=10**9), r"config\.json: max_length: expected 1 to"),
    "no such setting": (with_facts(decoding={"beams": 3}), r"config\.json: decoding: .*'beams'"),
    "too many beams": (with_facts(decoding={"beam_size": 10**9}), r"config\.json: decoding: beam_size: expected 1 to 1000"),
    "settings of another type": (with_facts(decoding=[3]), r"config\.json: not the configuration of an export: decoding"),
    "of another layout": (lambda folder: change_json(folder / "export.json", format=99), r"export\.json: expected format 1, found"),
    "other types": (with_graph("encoder_model", whole_pixels), r"pixel_values.* is a tensor\(int64\); expected tensor\(float\)"),
    "no JSON": (lambda folder: (folder / "config.json").write_text("{"), r"config\.json: not valid JSON"),
    "no protobuf": (lambda folder: (folder / "onnx/encoder_model.onnx").write_bytes(b"\x00" * 99), r"encoder_model\.onnx: cannot be loaded"),
    "cut": (lambda folder: cut(folder / "onnx/encoder_model.onnx"), r"encoder_model\.onnx: cannot be loaded"),
    "tokenizer is no JSON": (lambda folder: (folder / "tokenizer.json").write_text("[" * 9999), r"tokenizer\.json: "),
    "not UTF-8": (lambda folder: (folder / "tokenizer.json").write_bytes(b"\xff\xfe"), r"tokenizer\.json: expected UTF-8"),
}  # fmt: skip


def change_json(path: Path, **changes: Any) -> None:
    path.write_text(json.dumps(read_json(path) | changes))


def cut(path: Path) -> None:
    path.write_bytes(path.read_bytes()[:-100])


@pytest.mark.parametrize("name", HOSTILE)
def test_a_hostile_folder_is_one_error(
    name: str, own_export: Path, pictures: list[str], capsys: pytest.CaptureFixture[str]
) -> None:
    (own_export.parent.parent / "secret.bin").write_bytes(b"\x00" * 10**6)
    change, expected = HOSTILE[name]
    change(own_export)
    signed_again(own_export)
    with pytest.raises(Img2SeqError, match=expected):
        Captioner.load(own_export)
    assert cli.run(["caption", str(own_export), pictures[0]]) == 2
    (line,) = capsys.readouterr().err.splitlines()
    assert line.startswith("error: ")


def test_a_model_without_finite_numbers_is_one_error(
    own_export: Path, pictures: list[str], capsys: pytest.CaptureFixture[str]
) -> None:
    with_graph("decoder_model_merged", without_numbers)(own_export)
    signed_again(own_export)
    for method in ("beam", "greedy", "sample"):
        assert cli.run(["caption", str(own_export), pictures[0], "--method", method]) == 2
        assert "its numbers are not finite" in capsys.readouterr().err


def test_what_is_changed_in_it_is_found(own_export: Path) -> None:
    for name in read_json(own_export / "export.json")["sha256"]:
        if name in ("generation_config.json", "preprocessor_config.json") or "_fp16" in name or "_quantized" in name:
            continue  # not read for a caption in single precision
        path = own_export / name
        before = path.read_bytes()
        path.write_bytes(before[:-1] + b" ")
        with pytest.raises(RunError, match=f"{path.name}: changed since it was written"):
            Captioner.load(own_export)
        path.write_bytes(before)
    without_graphs(own_export)
    with pytest.raises(RunError, match=r"decoder_model_merged\.onnx: cannot be read: No such file"):
        Captioner.load(own_export)


def test_its_state_is_shown_and_its_files_are_verified(own_export: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert cli.run(["runs", "show", str(own_export)]) == 0
    shown = capsys.readouterr().out
    assert "exported for ONNX Runtime" in shown
    assert "int8 equal" in shown
    assert cli.run(["runs", "verify", str(own_export)]) == 0
    out = capsys.readouterr().out
    assert out.count("  ok ") == len(read_json(own_export / "export.json")["sha256"])
    (own_export / "generation_config.json").write_text("{}")
    cut(own_export / "onnx/encoder_model_fp16.onnx")
    (own_export / "tokenizer.json").unlink()
    (own_export / "onnx/decoder_model_merged.onnx").unlink()
    (own_export / "onnx/decoder_model_merged_quantized.onnx").unlink()
    assert cli.run(["runs", "verify", str(own_export)]) == 2
    assert capsys.readouterr().out.count("  BAD  ") == 5


def test_it_computes_on_the_cpu_and_has_one_step(exported: Path) -> None:
    step = read_json(exported / "export.json")["step"]
    assert Captioner.load(exported, device="cpu", step=step).loaded.step == step
    with pytest.raises(ConfigError, match="computes on the CPU"):
        Captioner.load(exported, device="cuda")
    with pytest.raises(RunError, match=f"is an export of step {step:,}"):
        Captioner.load(exported, step=step + 1)
    with pytest.raises(ModelError, match="expected a run, found an export"):
        _ = Captioner.load(exported).trained


def test_a_variant_is_chosen_and_one_that_is_not_there_is_named(
    own_export: Path, pictures: list[str], capsys: pytest.CaptureFixture[str]
) -> None:
    assert cli.run(["caption", str(own_export), pictures[0], "--precision", "int8"]) == 0
    assert capsys.readouterr().out == Captioner.load(own_export, precision="int8").caption(pictures[0]).text + "\n"
    for path in own_export.glob("onnx/*_fp16.onnx"):
        path.unlink()
    assert cli.run(["caption", str(own_export), pictures[0], "--precision", "fp16"]) == 2
    assert "was exported without --fp16" in capsys.readouterr().err


def test_a_run_has_no_variants(run: Path) -> None:
    with pytest.raises(ConfigError, match="precision: expected fp32 for a run"):
        Captioner.load(run, precision="int8")
