"""Runs that begin with another captioner: its words keep their numbers and logits, new ones are added, and training goes on from there."""

from __future__ import annotations

import csv
import json
import re
import shlex
import shutil
import signal
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from processes import main as do_jobs
from processes import run_job
from safetensors.torch import load_file
from torch import Tensor

from children import child, exit_code, free_port
from conftest import img2seq, tiny_config, write_tiny_data, write_yaml
from img2seq.build import prepare
from img2seq.build.other_captioner import grow, relatives_of
from img2seq.build.trained import load_run
from img2seq.config.load import ConfigFiles, load
from img2seq.config.outputs import SequenceModel
from img2seq.config.show import describe
from img2seq.data.tokenizer import BOS, SPECIAL_TOKENS, UNK, Tokenizer
from img2seq.data.vocabulary import add_words, learn_words
from img2seq.errors import ConfigError, Img2SeqError
from img2seq.export.export_run import export_run
from img2seq.generation.model_step import ModelStep
from img2seq.inference.captioner import Captioner
from img2seq.model.caption_model import CaptionModel
from img2seq.progress import Announcer
from img2seq.report.curves import Curve, draw_losses
from img2seq.report.run_state import describe_run
from img2seq.run import checkpoint as checkpoints
from img2seq.run.folder import RunFolder, read_json, read_tokenizer
from img2seq.run.tables import read_table
from img2seq.training.interruption import Interrupted
from img2seq.training.loop import Trainer, train

BASIC, CAPTIONS, PHOTO = "globals.basic_experiment", "outputs.captions", "inputs.photo"
NEW_WORDS = {"ball": "balloon", "red": "crimson"}  # of the first one's beginning a word is known
SCORED = "globals.evaluation_checkpoint.caption_metrics={method: greedy}"


def few_photographs(folder: Path, source: Path, *, n: int = 16) -> Path:
    """Write other photographs than those of `finished_runs`, with words it does not know, and the shortest experiment of them."""
    folder.mkdir(exist_ok=True)
    write_tiny_data(folder, n=n)
    with (folder / "captions.csv").open(encoding="utf-8") as file:
        rows = list(csv.reader(file))
    for row in rows[1:]:
        row[1] = " ".join(NEW_WORDS.get(word, word) for word in row[1].split(" "))
    with (folder / "captions.csv").open("w", encoding="utf-8", newline="") as file:
        csv.writer(file).writerows(rows)
    config = tiny_config(folder)
    config["globals"]["model"] = {"pretrained_run": str(source)}
    config["globals"]["basic_experiment"]["valid_size"] = 4
    config["inputs"][0]["input_type_info"] = {"auto_augment": False}
    del config["outputs"][0]["model_config"]  # taken from the other captioner
    write_yaml(folder / "experiment.yaml", config)
    return folder


@pytest.fixture
def few(tmp_path: Path, run: Path) -> Path:
    return few_photographs(tmp_path / "few", run)


def run_of(folder: Path, *overrides: str, resume: bool = False, overwrite: bool = False) -> RunFolder:
    loaded = load(ConfigFiles(experiment=str(folder / "experiment.yaml")), overrides)
    return train(loaded, resume=resume, overwrite=overwrite)


def newest(run: RunFolder) -> checkpoints.Checkpoint:
    return checkpoints.all_checkpoints(run.checkpoints)[-1]


def no_reading(*_: object, **__: object) -> None:
    pytest.fail("images are read")


# --- the vocabulary


@pytest.mark.parametrize("split_on", [" ", "", "words"])
def test_known_tokens_keep_their_numbers_and_new_ones_follow(split_on: str) -> None:
    known = learn_words(["a dog runs.", "a cat sits."], split_on=split_on, min_freq=1, lowercase=True)
    grown = add_words(known, ["A zebra, a zebra, a Quagga, a dog runs."] * 2, min_freq=3)
    assert grown.tokens[: len(known)] == known.tokens
    expected = {" ": {"zebra,"}, "": set("zeb,"), "words": {"zebra", ","}}[split_on]  # "quagga" is seen twice
    assert set(grown.tokens[len(known) :]) == expected
    assert grown.encode("a cat sits.") == known.encode("a cat sits.")
    assert grown.decode(grown.encode("a cat sits.")) == known.decode(known.encode("a cat sits."))
    assert (grown.split_on, grown.lowercase) == (split_on, True)
    assert add_words(grown, ["A zebra, a zebra, a Quagga, a dog runs."] * 2, min_freq=3).digest == grown.digest


def test_a_special_token_in_a_caption_is_no_new_word() -> None:
    known = learn_words(["a dog"], split_on=" ", min_freq=1)
    assert add_words(known, ["<eos> <pad> dog <bos>"] * 9, min_freq=1).tokens == known.tokens


def test_new_rows_are_means_of_words_with_the_same_beginning_or_of_all() -> None:
    words = ["climb", "climbs", "climbing", "clip", "dog"]
    before = Tokenizer([*SPECIAL_TOKENS, *words], split_on=" ")
    now = Tokenizer([*before.tokens, "climbed", "climber", "dogs", "clim", "quagga"], split_on=" ")
    assert relatives_of(now.tokens[len(before) :], before.tokens) == [[5, 6, 7], [5, 6, 7], [], [5, 6, 7], []]
    assert relatives_of(["climbings"], before.tokens) == [[7]]
    torch.manual_seed(0)
    weights = {
        "decoder.embedding.weight": torch.randn(10, 4),
        "decoder.bias": torch.randn(10),
        "decoder.position": torch.randn(6, 4),
        "other": torch.randn(3),
    }
    grown = grow(weights, before, now, 8)
    for name in ("decoder.embedding.weight", "decoder.bias"):
        old, new = weights[name], grown[name]
        assert new.shape == (15, *old.shape[1:])
        assert torch.equal(new[:10], old)
        for row in (10, 11, 13):
            torch.testing.assert_close(new[row], old[5:8].mean(0))
        for row in (12, 14):
            torch.testing.assert_close(new[row], old[5:].mean(0))
    assert torch.equal(grown["decoder.position"], weights["decoder.position"][[0, 1, 2, 3, 4, 5, 5, 5]])
    assert torch.equal(grown["other"], weights["other"])
    assert grow(weights, before, before, 6).keys() == weights.keys()
    assert torch.equal(grow(weights, before, before, 6)["decoder.bias"], weights["decoder.bias"])


# --- training


def test_it_begins_with_the_other_captioner_and_says_so(few: Path, run: Path) -> None:
    ours = run_of(few, SCORED)
    old, new = read_tokenizer(RunFolder(run)), read_tokenizer(ours)
    assert new.tokens[: len(old)] == old.tokens
    assert set(new.tokens[len(old) :]) == {"balloon", "crimson"}
    best = checkpoints.best(RunFolder(run).checkpoints)
    told = read_json(ours.pretrained)
    assert (told["run"], told["step"], told["words"]) == (str(run), best.step, len(old) - 5)
    assert told["new_words"] == new.tokens[len(old) :]
    log = ours.log.read_text()
    assert f"{len(old) - 5:,} tokens taken over, 2 new" in log
    history = read_table(ours.history_valid)
    assert history[0]["iteration"] == "0"
    before, after = float(history[0]["valid_loss"]), min(float(row["valid_loss"]) for row in history)
    assert after < before
    gained = f"loss {before:.2f} -> {after:.2f} nats per token, CIDEr-D"
    assert gained in log
    state = describe_run(ours.path)
    assert gained in state
    assert "2 new" in state
    assert read_json(ours.facts)["facts"]["normalization"] == read_json(RunFolder(run).facts)["facts"]["normalization"]


FROZEN = f"{PHOTO}.model_config.freeze_pretrained_model=true"


def test_step_0_is_the_other_captioner_and_may_be_the_best(few: Path, run: Path) -> None:
    """Nothing is learned at this rate, so what was there before is kept: its logits of the words it knew are what they were."""
    ours = run_of(few, "globals.optimization.lr=1e-30", FROZEN)
    old, new = load_run(run, device="cpu"), load_run(ours.path, device="cpu")
    assert new.checkpoint.step == 0
    before, after = old.model.state_dict(), new.model.state_dict()
    assert before.keys() == after.keys()
    for name, tensor in before.items():
        assert torch.equal(after[name][: len(tensor)] if tensor.ndim else after[name], tensor), name
    torch.manual_seed(0)
    pixels = torch.randint(0, 256, (1, 3, 32, 32), dtype=torch.uint8)
    tokens = [BOS, *old.tokenizer.encode("there is one box and it is red .")]
    assert UNK not in tokens
    known, grown = (logits_of(trained.model, pixels, tokens) for trained in (old, new))
    assert grown.shape == (len(tokens), len(old.tokenizer) + 2)
    assert torch.allclose(grown[:, : len(old.tokenizer)], known, atol=1e-5, rtol=0)
    ball = old.tokenizer.encode("ball")[0]
    balloon = new.tokenizer.encode("balloon")[0]
    assert torch.allclose(grown[:, balloon], known[:, ball], atol=1e-5, rtol=0)  # the only word of its beginning


def test_curves_begin_at_step_0_where_it_was_evaluated() -> None:
    curve = Curve("few", [], [], [0], [4.3], {"cider_d": [(0, 0.15)]})
    above, below = draw_losses([curve], title="few").axes
    assert [np.asarray(line.get_xdata()).tolist() for line in below.lines] == [[0]]
    assert [0] in [np.asarray(line.get_xdata()).tolist() for line in above.lines]
    assert below.get_legend() is not None


def logits_of(model: CaptionModel, pixels: Tensor, tokens: list[int]) -> Tensor:
    """Return (T, V) logits of the token after each."""
    with torch.inference_mode():
        step = ModelStep(model.decoder, model.encode(pixels={"photo": pixels}, features={}))
        step.begin(n_rows=1, group=1, max_tokens=len(tokens))
        return torch.cat([step.next_logits(torch.tensor([token])) for token in tokens])


CUTTINGS: dict[str, dict[str, Any]] = {
    "characters": {"split_on": ""},
    "bpe": {"tokenizer": "bpe", "split_on": None, "adaptive_tokenizer_max_vocab_size": 300},
    "words": {"split_on": "words"},
    "lowercase words": {"split_on": "words", "lowercase": True},
}


@pytest.mark.parametrize("cut", CUTTINGS)
def test_every_kind_of_tokenizer_grows_or_stays(cut: str, tmp_path: Path) -> None:
    write_tiny_data(tmp_path / "old")
    config = tiny_config(tmp_path / "old")
    config["globals"]["basic_experiment"]["n_epochs"] = 1
    config["outputs"][0]["output_type_info"] |= CUTTINGS[cut]
    write_yaml(tmp_path / "old/experiment.yaml", config)
    before = run_of(tmp_path / "old")
    few = few_photographs(tmp_path / "few", before.path)  # says nothing of how captions are cut
    old, new = read_tokenizer(before), read_tokenizer(run_of(few))
    assert (new.split_on, new.lowercase) == (old.split_on, old.lowercase)
    assert new.tokens[: len(old)] == old.tokens
    added = new.tokens[len(old) :]
    assert set(added) == ({"balloon", "crimson"} if "words" in cut else {"m"} if cut == "characters" else set())
    assert new.decode(new.encode("a crimson balloon .")) == new.normalise("a crimson balloon .") or "words" in cut
    assert UNK not in new.encode("a crimson balloon .")
    if cut == "bpe":
        assert new.digest == old.digest
    text = Captioner.load(few / "run", device="cpu").caption(few / "images/000.png", min_length=3).text
    assert len(text) > 2


def test_more_positions_are_added_and_none_is_taken_away(tmp_path: Path) -> None:
    write_tiny_data(tmp_path / "old")
    config = tiny_config(tmp_path / "old")
    config["globals"]["basic_experiment"]["n_epochs"] = 1
    config["outputs"][0]["model_config"]["position"] = "embed"
    write_yaml(tmp_path / "old/experiment.yaml", config)
    old = run_of(tmp_path / "old")
    few = few_photographs(tmp_path / "few", old.path)
    length = f"{CAPTIONS}.sampling_config.generated_sequence_length"
    for most, expected in ((12, 13), (20, 21), (3, 13)):
        ours = run_of(few, f"{length}={most}", "globals.optimization.lr=1e-30", overwrite=(few / "run").exists())
        before, now = (load_file(checkpoints.best(r.checkpoints).weights)["decoder.position"] for r in (old, ours))
        assert len(now) == read_json(ours.facts)["facts"]["n_positions"] == expected
        assert torch.equal(now[: len(before)], before)
        assert all(torch.equal(row, before[-1]) for row in now[len(before) :])


def test_a_lean_export_is_begun_with_as_the_run_is(few: Path, run: Path, tmp_path: Path) -> None:
    export_run(run, tmp_path / "lean", announce=Announcer(level="critical", bars=False))
    ours = run_of(few)
    exported = run_of(
        few, f"globals.model.pretrained_run={tmp_path / 'lean'}", f"{BASIC}.output_folder={few / 'other'}"
    )
    one, other = (load_file(newest(r).weights) for r in (ours, exported))
    assert one.keys() == other.keys()
    assert all(torch.equal(one[name], other[name]) for name in one)


def test_text_only_captioners_are_begun_with_too(tmp_path: Path, finished_runs: tuple[Path, Path]) -> None:
    few = few_photographs(tmp_path / "few", finished_runs[0])
    with pytest.raises(ConfigError, match=r"input_name: expected \[\], found \[photo\]"):
        run_of(few)
    history = read_table(run_of(few, "inputs=[]").history_valid)
    assert float(history[-1]["valid_loss"]) < float(history[0]["valid_loss"])


def test_the_encoder_may_be_frozen_cached_slower_or_trained_in_phases(few: Path, run: Path) -> None:
    old = load_file(checkpoints.best(RunFolder(run).checkpoints).weights)
    encoder = [name for name in old if name.startswith("encoders.")]

    def changed(*overrides: str) -> set[str]:
        new = load_file(newest(run_of(few, *overrides, overwrite=(few / "run").exists())).weights)
        return {name for name in encoder if not torch.equal(new[name], old[name])}

    absent = few / "absent.safetensors"  # an encoder's own weights are not read: those of the run are there
    assert not changed(FROZEN, f"{PHOTO}.model_config.pretrained_weights={absent}")
    assert not changed(FROZEN, f"{PHOTO}.model_config.cache_features=true")
    phases = "[{name: a, n_epochs: 1, encoder_stages: 0}, {name: b, n_epochs: 1, encoder_stages: 1}]"
    last = changed(f"globals.phases={phases}", f"{PHOTO}.model_config.lr_factor=0.1")
    assert last
    assert last < changed()  # batch statistics among them


def test_what_the_log_says_to_do_next_can_be_done(few: Path) -> None:
    """The text-only baseline has no use for a captioner that sees images, but needs the words of the run it is compared with."""
    log = run_of(few).log.read_text()
    commands = [shlex.split(line) for line in log[log.index("next:") :].splitlines() if line.startswith("  img2seq ")]
    assert [words[1] for words in commands] == ["caption", "evaluate", "train", "compare"]
    for words in commands[2:]:
        assert img2seq(*words[1:]) == 0


# --- resuming


@pytest.mark.parametrize(
    "how", [[], [FROZEN, f"{PHOTO}.model_config.cache_features=true"], ["globals.model.ema_decay=0.9"]]
)
def test_a_resumed_run_needs_nothing_of_the_other_one(
    how: list[str], few: Path, run: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    other = Path(shutil.copytree(run, few / "other"))
    common = [*how, SCORED, f"globals.model.pretrained_run={other}", "globals.evaluation_checkpoint.sample_interval=2"]
    whole = run_of(few, *common, f"{BASIC}.output_folder={few / 'whole'}")
    real = Trainer._stop_if_asked

    def stop(trainer: Trainer) -> None:
        trainer.stop_signal = signal.SIGTERM
        real(trainer)

    resumed = 0
    ours = RunFolder(few / "run")
    with monkeypatch.context() as patch:
        patch.setattr(Trainer, "_stop_if_asked", stop)
        for resume in (False, True, True):
            with pytest.raises(Interrupted):
                run_of(few, *common, resume=resume)
            shutil.rmtree(other, ignore_errors=True)
            resumed += resume
    assert resumed == 2
    assert newest(ours).step == 3
    run_of(few, *common, resume=True)
    for name in ("weights", "training"):
        one, same = (load_file(getattr(newest(r), name)) for r in (whole, ours))
        assert one.keys() == same.keys()
        assert all(torch.equal(one[key], same[key]) for key in one)
    columns = ("iteration", "valid_loss", "cider_d")
    assert [[row[c] for c in columns] for row in read_table(whole.history_valid)] == [
        [row[c] for c in columns] for row in read_table(ours.history_valid)
    ]
    assert ours.pretrained.read_text() == whole.pretrained.read_text()


def test_a_signal_while_the_other_captioner_is_measured_loses_nothing(
    few: Path, run: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    whole = run_of(few, f"{BASIC}.output_folder={few / 'whole'}")
    real = Trainer._measure

    def signalled(trainer: Trainer) -> None:
        trainer.stop_signal = signal.SIGTERM
        real(trainer)

    with monkeypatch.context() as patch:
        patch.setattr(Trainer, "_measure", signalled)
        with pytest.raises(Interrupted):
            run_of(few)
    assert newest(RunFolder(few / "run")).step == 0
    assert not read_table(RunFolder(few / "run").history_valid)
    ours = run_of(few, resume=True)
    assert [row["valid_loss"] for row in read_table(ours.history_valid)] == [
        row["valid_loss"] for row in read_table(whole.history_valid)
    ]


# --- what is taken from the other run, and what must agree


def test_what_is_not_written_is_taken_from_the_other_run_and_shown_so(few: Path, run: Path) -> None:
    loaded = load(ConfigFiles(experiment=str(few / "experiment.yaml")))
    old = load(ConfigFiles(experiment=str(run / "config.yaml"))).experiment
    assert loaded.experiment.output.model == old.output.model
    assert loaded.experiment.inputs[0].input_type_info.size == [32]
    lines = (run / "config.yaml").read_text().splitlines()
    number = 1 + next(n for n, line in enumerate(lines) if "embedding_dim:" in line)
    (line,) = [line for line in describe(loaded).splitlines() if "embedding_dim" in line]
    assert line.endswith(f"# {run / 'config.yaml'}:{number}")
    kept = load(ConfigFiles(experiment=str(few / "experiment.yaml")), [f"{CAPTIONS}.model_config.embedding_dim=32"])
    assert isinstance(kept.experiment.output.model, SequenceModel)
    assert kept.experiment.output.model.embedding_dim == 32


def test_a_finished_run_is_read_whatever_became_of_the_other_one(few: Path, run: Path) -> None:
    other = Path(shutil.copytree(run, few / "other"))
    ours = run_of(few, f"globals.model.pretrained_run={other}")
    before = describe_run(ours.path)
    (other / "config.yaml").write_text("x: [")
    assert describe_run(ours.path) == before


DIFFERENT: dict[str, tuple[str, str]] = {
    f"{PHOTO}.input_type_info.size": ("[64]", "expected [32, 32], found [64, 64]"),
    f"{PHOTO}.input_type_info.mode": ("L", "expected RGB, found L"),
    f"{PHOTO}.model_config.model_type": ("test_vit", "expected test_resnet, found test_vit"),
    f"{PHOTO}.model_config.model_init_config": ("{drop_path_rate: 0.1}", "expected {}, found {drop_path_rate: 0.1}"),
    f"{CAPTIONS}.model_config.embedding_dim": ("32", "expected 16, found 32"),
    f"{CAPTIONS}.model_config.position": ("embed", "expected encode, found embed"),
    f"{CAPTIONS}.model_config.model_init_config.num_layers": ("3", "expected 2, found 3"),
    f"{CAPTIONS}.model_config.model_init_config.num_heads": ("4", "expected 2, found 4"),
    f"{CAPTIONS}.model_config.model_init_config.dim_feedforward": ("16", "expected 64, found 16"),
    f"{CAPTIONS}.output_type_info.lowercase": ("true", "expected false, found true"),
    f"{CAPTIONS}.output_type_info.split_on": ("words", "expected ' ', found words"),
    f"{CAPTIONS}.output_type_info.tokenizer": ("bpe", "expected null, found bpe"),
}


@pytest.mark.parametrize("field", DIFFERENT)
def test_one_field_that_differs_is_named_before_images_are_read(
    field: str, few: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(prepare, "cache_pixels", no_reading)
    value, expected = DIFFERENT[field]
    with pytest.raises(ConfigError, match=re.escape(f"{field.removeprefix('outputs.captions.')}: {expected}")):
        run_of(few, f"{field}={value}")
    assert not (few / "run").exists()


def test_all_differences_are_in_one_message(few: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(prepare, "cache_pixels", no_reading)
    mean = f"{PHOTO}.input_type_info.mean_normalization_values=[0.5, 0.5, 0.5]"
    stds = f"{PHOTO}.input_type_info.stds_normalization_values=[0.5, 0.5, 0.5]"
    vocabulary = few / "words.json"
    vocabulary.write_text(json.dumps({"a": 0}))
    chosen = [field for field in DIFFERENT if not field.endswith(("mode", "tokenizer"))]
    with pytest.raises(ConfigError) as error:
        run_of(
            few,
            mean,
            stds,
            f"{CAPTIONS}.output_type_info.vocab_file={vocabulary}",
            *(f"{f}={DIFFERENT[f][0]}" for f in chosen),
        )
    named = [line for line in str(error.value).splitlines() if ": expected " in line]
    assert len(named) == len(chosen) + 3
    assert sum("normalization_values: expected [" in line for line in named) == 2
    assert sum("vocab_file: expected null" in line for line in named) == 1


def test_the_values_that_the_message_names_are_taken(few: Path, run: Path) -> None:
    facts = read_json(run / "facts.json")["facts"]["normalization"]["photo"]
    run_of(
        few,
        f"{PHOTO}.input_type_info.mean_normalization_values={facts['mean']}",
        f"{PHOTO}.input_type_info.stds_normalization_values={facts['std']}",
    )


def broken_weights(folder: Path, run: Path) -> Path:
    copy = Path(shutil.copytree(run, folder / "damaged"))
    for checkpoint in checkpoints.all_checkpoints(copy / "checkpoints"):
        data = bytearray(checkpoint.weights.read_bytes())
        data[-1] ^= 1
        checkpoint.weights.write_bytes(data)
    return copy


WRONG: dict[str, tuple[Callable[[Path, Path], object], str]] = {
    "nothing": (lambda folder, _: folder / "none", "expected a run folder, found nothing"),
    "a near name": (lambda _, run: run.parent / "imag", "Did you mean 'image'"),
    "a file of weights": (lambda _, run: checkpoints.best(run / "checkpoints").weights, "expected a run folder, found a file"),
    "a checkpoint": (lambda _, run: checkpoints.best(run / "checkpoints").path, "expected a run folder, found a folder without config.yaml"),
    "damaged weights": (broken_weights, "damaged"),
    "itself": (lambda folder, _: folder / "run", "expected another run than output_folder"),
}  # fmt: skip


@pytest.mark.parametrize("what", WRONG)
def test_what_cannot_be_begun_with_is_one_error_before_images_are_read(
    what: str, few: Path, run: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(prepare, "cache_pixels", no_reading)
    make, expected = WRONG[what]
    with pytest.raises(Img2SeqError, match=expected):
        run_of(
            few,
            f"globals.model.pretrained_run={make(few, run)}",
            f"{CAPTIONS}.model_config={{embedding_dim: 16, model_init_config: {{num_heads: 2}}}}",
        )
    assert not (few / "run").exists()


def test_an_onnx_export_cannot_be_trained_further(
    few: Path, exported: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setattr(prepare, "cache_pixels", no_reading)
    assert img2seq("train", few / "experiment.yaml", f"--globals.model.pretrained_run={exported}") == 2
    error = capsys.readouterr().err
    assert "cannot be trained further" in error
    assert "Traceback" not in error
    assert not (few / "run").exists()


def test_a_checkpoint_beside_it_is_refused_with_its_line(few: Path, run: Path) -> None:
    with pytest.raises(ConfigError, match="pretrained_run: cannot be combined with pretrained_checkpoint"):
        load(ConfigFiles(experiment=str(few / "experiment.yaml")), [f"globals.model.pretrained_checkpoint={run}"])


def test_captions_without_spaces_are_refused_as_they_are_without_another_captioner(
    few: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(prepare, "cache_pixels", no_reading)
    lines = (few / "captions.csv").read_text().splitlines()
    lines[1:] = [f"{line.split(',')[0]},一个红色的球在草地上" for line in lines[1:]]
    (few / "captions.csv").write_text("\n".join(lines), encoding="utf-8")
    with pytest.raises(Img2SeqError, match="no spaces between words"):
        run_of(few)


# --- several processes


def test_two_processes_begin_with_another_captioner_as_one_does(tmp_path: Path, run: Path) -> None:
    few = few_photographs(tmp_path / "few", run)
    plain = [
        FROZEN, SCORED, f"{CAPTIONS}.model_config.position_dropout=0.0", f"{CAPTIONS}.model_config.model_init_config.dropout=0.0",
    ]  # fmt: skip

    def job(name: str) -> dict[str, Any]:
        return {
            "name": name,
            "experiment": str(few / "experiment.yaml"),
            "overrides": [*plain, f"{BASIC}.output_folder={few / name}"],
        }

    (few / "jobs.json").write_text(json.dumps([job("two")]))
    port = free_port()
    with (
        child(do_jobs, few / "jobs.json", 0, port, log=few / "0") as first,
        child(do_jobs, few / "jobs.json", 1, port, log=few / "1") as second,
    ):
        codes = [exit_code(process) for process in (first, second)]
    assert codes == [0, 0], [(few / rank).read_text()[-3000:] for rank in "01"]
    run_job(job("one"))
    one, two = (read_table(RunFolder(few / name).history_valid) for name in ("one", "two"))
    assert [row["iteration"] for row in two] == [row["iteration"] for row in one]
    assert two[0]["iteration"] == "0"
    for name in ("valid_loss", "cider_d"):
        assert float(two[0][name]) == pytest.approx(float(one[0][name]), abs=1e-5)
        assert float(two[-1][name]) == pytest.approx(float(one[-1][name]), abs=1e-3)
    assert (few / "two.0").read_text() == (few / "two.1").read_text()
