"""Malicious weights, run folders and configurations (row 27 of docs/faults.md): nothing runs, nothing large is allocated."""

from __future__ import annotations

import hashlib
import json
import os
import pickle
import shutil
import struct
import subprocess
import sys
import zipfile
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch
from safetensors.torch import save_file

from conftest import PEAK_MB, tiny_config, write_tiny_data, write_yaml
from img2seq.build.trained import load_run
from img2seq.cli import main as cli
from img2seq.config.load import load_config
from img2seq.data.vocabulary import from_vocab_file
from img2seq.errors import ConfigError, DataError, Img2SeqError, ModelError, RunError, ScoreError
from img2seq.inference.caption_output import CaptionOutput, Layout
from img2seq.metrics.cider import DocumentFrequency
from img2seq.metrics.formats import read_references, read_results
from img2seq.model.foreign_weights import read_any_shapes as read_shapes
from img2seq.model.foreign_weights import read_any_tensors as read_tensors
from img2seq.report.comparison_page import compare
from img2seq.run import checkpoint as checkpoints
from img2seq.run.checkpoint import best
from img2seq.run.folder import RunFolder, read_json
from img2seq.run.lock import owner_of


class Payload:
    """Unpickled, touches a file."""

    def __init__(self, canary: Path):
        self.canary = canary

    def __reduce__(self) -> tuple[object, ...]:
        return (Path.touch, (self.canary,))


def test_a_pickle_that_would_run_code_is_refused_and_does_not_run(tmp_path: Path) -> None:
    canary = tmp_path / "canary"
    for name, protocol in (("a.pth", 2), ("b.bin", 4), ("c.pt", 5), ("d.safetensors", 4)):
        (tmp_path / name).write_bytes(pickle.dumps(Payload(canary), protocol=protocol))
        with pytest.raises(ModelError):
            read_tensors(tmp_path / name)
    for name, content in (("e.pth", {"x": Payload(canary)}), ("f.pth", {"state_dict": Payload(canary)})):
        torch.save(content, tmp_path / name)
        with pytest.raises(ModelError, match="more than tensors"):
            read_tensors(tmp_path / name)
    assert not canary.exists()
    pickle.loads((tmp_path / "a.pth").read_bytes())  # the payload does work where it is let in
    assert canary.exists()


def test_a_configuration_names_no_code(tmp_path: Path) -> None:
    canary = tmp_path / "canary"
    for tag in (
        f"!!python/object/apply:pathlib.Path.touch [{canary}]",
        f"!!python/object/new:os.system ['touch {canary}']",
    ):
        (tmp_path / "e.yaml").write_text(f"globals: {tag}\n")
        with pytest.raises(ConfigError, match=r"e\.yaml:1: globals: tags are not supported"):
            load_config(tmp_path / "e.yaml")
    config = tiny_config(tmp_path)
    for key in ("class_path", "_target_", "import"):
        config["inputs"][0][key] = "os.system"
        with pytest.raises(ConfigError, match="unknown key"):
            load_config(write_yaml(tmp_path / "e.yaml", config))
        del config["inputs"][0][key]
    assert not canary.exists()


# --- safetensors headers


def safetensors(header: Any, body: bytes = b"\0" * 16, *, declared: int | None = None) -> bytes:
    text = header if isinstance(header, bytes) else json.dumps(header).encode()
    return struct.pack("<Q", len(text) if declared is None else declared) + text + body


def tensor(shape: list[int], begin: int, end: int, dtype: str = "F32") -> dict[str, Any]:
    return {"dtype": dtype, "shape": shape, "data_offsets": [begin, end]}


ATTACKS = {
    "no header": b"",
    "cut in the length": b"\x10\0\0",
    "a header of 2**63 bytes": safetensors({}, declared=2**63),
    "a header of 2**64 - 1 bytes": safetensors({}, declared=2**64 - 1),
    "a header longer than the file": safetensors({"a": tensor([4], 0, 16)}, declared=10_000),
    "a header of 50 MB": safetensors(b'{"__metadata__": {"a": "' + b" " * 50_000_000 + b'"}}', b""),
    "not JSON": safetensors(b"\x80\x04pickle"),
    "a list": safetensors([]),
    "nested deeply": safetensors(b"[" * 100_000),
    "a terabyte in one tensor": safetensors({"a": tensor([250_000_000_000], 0, 10**12)}),
    "a terabyte in 16 bytes": safetensors({"a": tensor([250_000_000_000], 0, 16)}),
    "a product beyond 64 bits": safetensors({"a": tensor([2**32, 2**32, 2**32], 0, 16)}),
    "a negative side": safetensors({"a": tensor([-4], 0, 16)}),
    "offsets that go back": safetensors({"a": tensor([4], 16, 0)}),
    "offsets beyond the file": safetensors({"a": tensor([4], 16, 32)}),
    "two tensors in one place": safetensors({"a": tensor([4], 0, 16), "b": tensor([4], 0, 16)}),
    "tensors that overlap": safetensors({"a": tensor([3], 0, 12), "b": tensor([2], 8, 16)}),
    "a hole": safetensors({"a": tensor([1], 0, 4), "b": tensor([1], 12, 16)}),
    "bytes that no tensor owns": safetensors({"a": tensor([4], 0, 16)}, b"\0" * 17),
    "an unknown type": safetensors({"a": tensor([4], 0, 16, "PICKLE")}),
    "no offsets": safetensors({"a": {"dtype": "F32", "shape": [4]}}),
}  # fmt: skip


@pytest.mark.parametrize("name", ATTACKS)
def test_a_header_that_lies_is_refused(name: str, tmp_path: Path) -> None:
    (tmp_path / "w.safetensors").write_bytes(ATTACKS[name])
    for read in (read_shapes, read_tensors):
        with pytest.raises(ModelError, match=r"w\.safetensors"):
            read(tmp_path / "w.safetensors")


PEAK = f"""{PEAK_MB}
import sys
import img2seq.build.trained as trained, img2seq.model.foreign_weights as weights
from img2seq.errors import Img2SeqError
from img2seq.model.encoder import ImageEncoder
ImageEncoder("test_resnet", height=32, width=32, mean=[0.5] * 3, std=[0.5] * 3)  # imports timm
before = peak_mb()
for path in sys.argv[1:]:
    try:
        trained.load_run(path, device="cpu") if Path(path).is_dir() else weights.read_any_shapes(path)
        print("read", path)
    except Img2SeqError as error:
        print("refused", str(error).splitlines()[0])
print(peak_mb() - before)
"""


def peak_of_loading(*paths: Path) -> tuple[list[str], int]:
    """Return what became of each path, and by how many MB a process that loads them grew."""
    done = subprocess.run([sys.executable, "-c", PEAK, *paths], capture_output=True, text=True, check=True)
    *outcomes, megabytes = done.stdout.splitlines()
    return outcomes, int(megabytes)


def test_no_file_of_weights_makes_us_allocate_more_than_it_is_long(tmp_path: Path) -> None:
    paths = []
    for number, (name, content) in enumerate(ATTACKS.items()):
        if name != "a header of 50 MB":  # honest about its length
            paths.append(tmp_path / f"{number}.safetensors")
            paths[-1].write_bytes(content)
    torch.save({"a": torch.zeros(100)}, tmp_path / "small.pth")
    with zipfile.ZipFile(tmp_path / "small.pth") as small, zipfile.ZipFile(tmp_path / "bomb.pth", "w") as bomb:
        for entry in small.namelist():
            packed = entry.endswith("data/0")
            content = bytes(500_000_000) if packed else small.read(entry)
            bomb.writestr(entry, content, zipfile.ZIP_DEFLATED if packed else zipfile.ZIP_STORED)
    bytearrays = b"\x80\x02c__builtin__\nbytearray\n" + b"J" + struct.pack("<i", 1_500_000_000) + b"\x85R."
    (tmp_path / "bytes.pth").write_bytes(bytearrays)
    with zipfile.ZipFile(tmp_path / "small.pth") as small, zipfile.ZipFile(tmp_path / "packed.pth", "w") as packed_too:
        for entry in small.namelist():
            packed_too.writestr(entry, bytearrays if entry.endswith("data.pkl") else small.read(entry))
    paths += [tmp_path / f"{name}.pth" for name in ("bomb", "bytes", "packed")]
    outcomes, megabytes = peak_of_loading(*paths)
    assert all(outcome.startswith("refused") for outcome in outcomes), outcomes
    assert megabytes < 60


def test_what_torch_saves_of_tensors_is_read(tmp_path: Path) -> None:
    model = torch.nn.Sequential(torch.nn.Conv2d(3, 4, 3), torch.nn.BatchNorm2d(4))
    saved = dict(model.state_dict())
    saved |= {str(kind): torch.ones(3, dtype=kind) for kind in (torch.float16, torch.bfloat16, torch.bool, torch.uint8)}
    saved |= {"parameter": torch.nn.Parameter(torch.ones(2)), "turned": torch.ones(2, 3).T}
    for number, (content, is_archive) in enumerate(
        [(saved, True), (saved, False), (model.state_dict(), True), ({"state_dict": saved, "epoch": 3, "type": torch.float32}, True)]
    ):  # fmt: skip
        torch.save(content, tmp_path / f"{number}.pth", _use_new_zipfile_serialization=is_archive)
        expected = model.state_dict() if number == 2 else saved
        found = read_tensors(tmp_path / f"{number}.pth")
        assert found.keys() == expected.keys()
        assert all(torch.equal(found[name], tensor) for name, tensor in expected.items())


# --- run folders


@pytest.fixture
def copied_run(finished_runs: tuple[Path, Path], tmp_path: Path) -> Path:
    """Return a run without digests, as the first versions wrote it or as somebody else would sign it."""
    run = Path(shutil.copytree(finished_runs[1], tmp_path / "run", symlinks=True))
    (run / "digests.json").unlink()
    return run


def changed_facts(**changes: Any) -> Callable[[Path], None]:
    def change(run: Path) -> None:
        data = json.loads((run / "facts.json").read_text())
        data["facts"] |= changes
        (run / "facts.json").write_text(json.dumps(data))

    return change


def changed_config(old: str, new: str) -> Callable[[Path], None]:
    def change(run: Path) -> None:
        text = (run / "config.yaml").read_text()
        assert old in text
        (run / "config.yaml").write_text(text.replace(old, new))

    return change


LIES: dict[str, Callable[[Path], None]] = {
    "a vocabulary of a billion": changed_facts(vocabulary=10**9),
    "a million million positions": changed_facts(n_positions=10**12),
    "a number that is none": changed_facts(vocabulary="all"),
    "no normalisation": changed_facts(normalization={}),
    "a wide decoder": changed_config("embedding_dim: 16", "embedding_dim: 16384"),
    "a deep decoder": changed_config("num_layers: 2", "num_layers: 200"),
    "a giant encoder": changed_config("model_type: test_resnet", "model_type: vit_giant_patch14_dinov2"),
}  # fmt: skip


def test_a_run_folder_that_lies_about_its_size_is_refused_before_it_is_allocated(
    copied_run: Path, tmp_path: Path
) -> None:
    runs = []
    for number, lie in enumerate(LIES.values()):
        runs.append(shutil.copytree(copied_run, tmp_path / f"lie_{number}", symlinks=True))
        lie(runs[-1])
    outcomes, megabytes = peak_of_loading(*runs)
    assert [outcome.split()[0] for outcome in outcomes] == ["refused"] * len(LIES), outcomes
    assert megabytes < 100
    assert load_run(copied_run).facts.vocabulary < 100


def test_weights_of_another_shape_are_refused_with_their_names(copied_run: Path, tmp_path: Path) -> None:
    checkpoint = best(RunFolder(copied_run).checkpoints)
    tensors = {name: value.clone() for name, value in read_tensors(checkpoint.weights).items()}
    name = next(iter(tensors))
    tensors[name] = torch.zeros(3, 3)
    save_file(tensors, checkpoint.weights)
    with pytest.raises(RunError, match=r"bytes|damaged"):
        load_run(copied_run)
    sign_anew(checkpoint)
    with pytest.raises(ModelError, match=name):
        load_run(copied_run)


def sign_anew(checkpoint: checkpoints.Checkpoint) -> None:
    """Write the manifest of what is there now, as whoever changed it on purpose would."""
    contents = {name: (checkpoint.path / name).read_bytes() for name in checkpoints.FILES}
    files: dict[str, dict[str, int | str]] = {
        name: {"bytes": len(content), "sha256": hashlib.sha256(content).hexdigest()}
        for name, content in contents.items()
    }
    (checkpoint.path / "manifest.json").write_text(checkpoints.manifest_text(files))


Tensors = dict[str, torch.Tensor]
ODD_TENSORS: dict[str, Callable[[Tensors], Tensors]] = {
    "no tensors": lambda t: {},
    "a name without a dot": lambda t: t | {"optimizer": torch.ones(1)},
    "a part that is none": lambda t: t | {"evil.0.step": torch.ones(1)},
    "no number": lambda t: t | {"optimizer.x.step": torch.ones(())},
    "no key": lambda t: t | {"optimizer.0": torch.ones(())},
    "a number beyond the last": lambda t: t | {"optimizer.99999.step": torch.ones(())},
    "a negative number": lambda t: t | {"optimizer.-1.exp_avg": torch.ones(())},
    "a number written otherwise": lambda t: {n.replace("optimizer.0.", "optimizer.00."): v for n, v in t.items()},
    "another key": lambda t: {n.replace("exp_avg", "other"): v for n, v in t.items()},
    "a key too many": lambda t: t | {"optimizer.0.max_exp_avg_sq": t["optimizer.0.exp_avg"].clone()},
    "a key too few": lambda t: {n: v for n, v in t.items() if n != "optimizer.0.exp_avg_sq"},
    "another shape": lambda t: t | {"optimizer.0.exp_avg": torch.ones(3, 1, 4)},
    "steps of many": lambda t: t | {"optimizer.0.step": torch.ones(7)},
    "an average of nothing": lambda t: t | {"average.no such weight": torch.ones(1)},
    "an average of another shape": lambda t: {n: torch.ones(2, 9) if n.startswith("average") else v for n, v in t.items()},
    "trained weights of nothing": lambda t: t | {"trained.no such weight": torch.ones(1)},
    "trained weights of another shape": lambda t: {n: torch.ones(2, 9) if n.startswith("trained") else v for n, v in t.items()},
}  # fmt: skip
ODD_STATES: dict[str, Callable[[dict[str, Any]], object]] = {
    "a list": lambda s: [],
    "a number": lambda s: 3,
    "nothing": lambda s: None,
    "empty": lambda s: {},
    "no position": lambda s: {k: v for k, v in s.items() if k != "position"},
    "a position that is a list": lambda s: s | {"position": [1]},
    "an unknown field": lambda s: s | {"position": s["position"] | {"evil": 1}},
    "a field too few": lambda s: s | {"position": {k: v for k, v in s["position"].items() if k != "batch"}},
    "a step that is text": lambda s: s | {"position": s["position"] | {"step": "5"}},
    "a batch that is a share": lambda s: s | {"position": s["position"] | {"batch": 0.5}},
    "a negative epoch": lambda s: s | {"position": s["position"] | {"epoch": -1}},
    "an epoch that is true": lambda s: s | {"position": s["position"] | {"epoch": True}},
    "another step": lambda s: s | {"position": s["position"] | {"step": 4}},
    "a best loss that is none": lambda s: s | {"position": s["position"] | {"best_loss": "low"}},
    "a time without end": lambda s: s | {"position": s["position"] | {"elapsed_s": float("inf")}},
    "averages without end": lambda s: s | {"n_averaged": float("inf")},
    "averages of 400 digits": lambda s: s | {"n_averaged": 10**400},
    "a time of 400 digits": lambda s: s | {"position": s["position"] | {"train_time_s": 10**400}},
    "a batch beyond the epoch's": lambda s: s | {"position": s["position"] | {"batch": 10**6}},
    "a batch that was not reached": lambda s: s | {"position": s["position"] | {"batch": 2}},
    "an epoch that was not reached": lambda s: s | {"position": s["position"] | {"epoch": 7}},
    "a validation loss that is none": lambda s: s | {"valid_loss": float("nan")},
    "averages that are no number": lambda s: s | {"n_averaged": "all"},
    "a validation loss that is text": lambda s: s | {"valid_loss": "low"},
}  # fmt: skip


@pytest.fixture(scope="module")
def stopped_run(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Return the folder of a run that was stopped after one step, with averages."""
    folder = tmp_path_factory.mktemp("stopped")
    write_tiny_data(folder)
    os.environ["IMG2SEQ_CACHE"] = str(folder / "cache")
    config = tiny_config(folder)
    config["globals"]["model"] = {"ema_decay": 0.9}
    write_yaml(folder / "experiment.yaml", config)
    assert cli.run(["train", str(folder / "experiment.yaml"), "--max_time", "0.001"]) == 0
    return folder


@pytest.mark.parametrize("odd", [*ODD_TENSORS, *ODD_STATES])
def test_a_checkpoint_signed_anew_that_is_no_state_of_the_run_is_one_error(
    odd: str, stopped_run: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    run = Path(shutil.copytree(stopped_run / "run", tmp_path / "run", symlinks=True))
    (checkpoint,) = checkpoints.all_checkpoints(run / "checkpoints")
    if odd in ODD_TENSORS:
        save_file(ODD_TENSORS[odd](read_tensors(checkpoint.training)), checkpoint.training)
    else:
        path = checkpoint.path / "state.json"
        path.write_text(json.dumps(ODD_STATES[odd](json.loads(path.read_text()))))
    sign_anew(checkpoint)
    capsys.readouterr()
    arguments = [
        "train",
        str(stopped_run / "experiment.yaml"),
        "--resume",
        "--globals.basic_experiment.max_time_s=1000",
    ]
    assert cli.run([*arguments, f"--globals.basic_experiment.output_folder={run}"]) == 2
    (error,) = [line for line in capsys.readouterr().err.splitlines() if line.startswith("error: ")]
    assert checkpoint.path.name in error
    assert checkpoints.damage(checkpoint) == []  # it stays as it was


def test_a_page_holds_no_file_from_outside_the_run_folders(
    finished_runs: tuple[Path, Path], copied_run: Path, tmp_path: Path
) -> None:
    (tmp_path / "secret.jpg").write_bytes(b"the secret")
    captions = copied_run / "validation/captions.json"
    entries = json.loads(captions.read_text())
    for entry in entries:
        entry["picture"] = "../../secret.jpg"
    captions.write_text(json.dumps(entries))
    with pytest.raises(RunError, match="leads out of the run folder"):
        compare([str(finished_runs[0]), str(copied_run)], str(tmp_path / "report"))


@pytest.mark.parametrize("content", ["{}", "[]", '{"facts": []}', '{"facts": {"vocabulary": 3}}', "null"])
def test_facts_that_are_none_are_one_error(content: str, copied_run: Path) -> None:
    (copied_run / "facts.json").write_text(content)
    with pytest.raises(Img2SeqError, match=r"facts\.json"):
        load_run(copied_run)


@pytest.mark.parametrize(
    "content",
    ["[]", "{}", "null", '{"format": "img2seq-tokenizer", "version": 1, "tokens": [[]], "split_on": " ", "lowercase": false, "bpe": null}'],
)  # fmt: skip
def test_a_tokenizer_that_is_none_is_one_error(content: str, copied_run: Path) -> None:
    (copied_run / "tokenizer.json").write_text(content)
    with pytest.raises(DataError, match=r"tokenizer\.json"):
        load_run(copied_run)


def test_json_that_is_nested_too_deeply_is_one_error(copied_run: Path, tmp_path: Path) -> None:
    run, nested = RunFolder(copied_run), tmp_path / "nested.json"
    nested.write_text("[" * 200_000)
    with pytest.raises(RunError, match=r"nested\.json"):
        read_json(nested)
    checkpoint = best(run.checkpoints)
    (checkpoint.path / "manifest.json").write_text(nested.read_text())
    assert [line for line in checkpoints.damage(checkpoint) if "manifest.json: damaged" in line]
    run.lock.write_text(nested.read_text())
    assert owner_of(run) is None
    with pytest.raises(DataError, match=r"nested\.json"):
        from_vocab_file(nested, split_on=" ", lowercase=False)
    for read in (read_results, read_references, DocumentFrequency.load):
        with pytest.raises(ScoreError, match=r"nested\.json"):
            read(nested)
    captions = tmp_path / "captions.jsonl"
    captions.write_text(nested.read_text() + "\n")
    with pytest.raises(DataError, match=r"captions\.jsonl"):
        CaptionOutput(captions, Layout("jsonl"), resume=True)
