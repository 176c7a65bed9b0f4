"""The shape of the house: dependencies point one way, rooms stay small, captioning reaches little, imports do nothing.

`python tests/test_architecture.py` prints the rooms with their lines and budgets, and what a served caption reaches.
"""

from __future__ import annotations

import ast
import json
import subprocess
import sys
from pathlib import Path

import pytest

from conftest import ROOT

PACKAGE = ROOT / "src/img2seq"

# The rooms in order: each may import from those above it, and from its own kind. With each its budget in lines; raising one
# needs a reason beside it.
LEVELS: list[dict[str, int]] = [
    {"errors": 115, "files": 20},  # each message is kept short in errors; files says which are read
    {"extras": 35},  # which packages the core install leaves out, and how their absence is said
    # every field with its meaning is a line of the schema: 525 of these. 90 take what is not written from the run that training begins with,
    # 100 are a language model as decoder: its fields, what goes with it, and kinds of sections told apart in errors
    {"config": 1535},
    # 1,800 read twelve formats of captions and find the pictures they name; 800 find what is wrong with pictures and tables before they
    # are used, 220 say a tokenizer in the format of `tokenizers`, 65 cut sentences into words and write them again, 115 number a language model's tokens anew. 200 of model map images to the prefix of a language model, which reads it. Kernels are 700 of model, 350 its graphs for ONNX Runtime.
    {"data": 5010, "progress": 95, "model": 2240},
    # 1,030 fetch, resumable at any byte over bad networks; 850 convert to five targets, whole or not there, never over a person's own.
    {"datasets": 1900},
    # 500 of these keep a run whole: lock, checkpoints beside training, snapshots; 8 know an export; 120 fetch one from the hub.
    # 190 read an export for ONNX Runtime, which may come from anywhere; 10 say that a run needs PyTorch, 10 tell runs from pictures.
    # 60 are the settings that a run was tuned with, and what is checked of them.
    {"run": 1400},
    # 90 of generation average the probabilities of several models, on numpy and torch. 150 are the operations that numpy and torch spell differently, so that one search runs on both. 60 ask a language model.
    # The PTB tokenizer's rules and character classes are tables of 400 lines; 190 of metrics score 30,000 sampled captions in a second, 35
    # the same images again and again.
    {"generation": 1070, "metrics": 1750},
    # 170 of build find before images are read what would otherwise be found after; 25 give a phase other images; 190 begin with another
    # captioner: what must agree, in one message, and the vectors of new words; 370 find and read a language model, say what is wrong with it, and cut it
    {"build": 1335},
    # 600 of inference are the files of `caption`: which pictures, lists and shards among them, and outputs that are continued to the byte.
    # 75 of report say whether captions beat one sentence said of every picture; 210 are the page of `caption --html` and the words
    # of captions of any tokens, with a capital or not, 80 show an export, 90 scores of captions while a run trains, and its phases. 25 of inference
    # hand pictures and captions to that page, 300 are what captions: torch or ONNX Runtime, loaded from a run or an export; 190 several of them as
    # one, each with pixels of its own, and mirror images. 40 of report say what fine-tuning has added, 30 how a run was tuned to search.
    {"inference": 1515, "report": 1635},
    # 500 of training are several processes and exact resume; 60 turn lost pictures into warnings, 175 score captions and choose by them,
    # 240 train by the score of sampled captions, 230 in phases, 155 send figures to W&B and MLflow
    {"training": 3035},
    # 370 of serving are four kinds of clients, 240 what OpenAPI says, 280 the one thread that runs models, 100 pictures at URLs.
    {"serving": 2400},
    # 40 of evaluation say what it is made from; 20 are the second file, so that results are scored without a model; 100 evaluate
    # an export, 145 several models on pictures that none of them was trained on. An export is whole or not there, compared with its run, and replaces nothing unasked.
    # 500 of export are the files that other programs read, smaller precisions, and the comparison on real pictures.
    # 390 of export are the model card: what is known, in Markdown and YAML that any text passes through unharmed, and no path of the machine; 95 are
    # the mean of checkpoints.
    # 240 of evaluation choose how a run searches, by the scores of its captions.
    {"evaluation": 885, "export": 1410},
    # demo: scenes, and words that are true of them. Of start, 170 find captions and the settings that read them, 200 write them down with reasons,
    # 75 leave to another captioner what it decides. A recipe is a line.
    {"demo": 700, "start": 655},
    # 45 of cli join `caption` and its page, of which neither room knows the other; 200 declare and show `data fetch` and `data convert`,
    # 115 declare the limits of `serve`, 45 `export`, 55 what a person says on a model card, 30 which verbs need PyTorch and
    # that only the verb at hand is imported; 35 several runs on one line, 30 `runs average`.
    # 35 are `evaluate --tune`, 10 `--embed`.
    {"cli": 1580, "__init__": 35, "__main__": 10},
]
MAY_NOT_MEET = [{"data", "model"}, {"generation", "metrics"}, {"report", "inference"}]
SERVED_CAPTION = "img2seq.inference.captioner"  # from here, what is reached counts
# The two ways from a folder to captions, with their budgets in lines. 230 of both let one search run on numpy and on torch, 60 cut and
# write sentences; 60 of a run's and 10 of an export's read the settings it was tuned with; 330 of a run's answer through ONNX Runtime where that is faster; 120 of a run's and 65 of an export's know the fields of a language
# model as decoder, and whom to ask; 390 of an export's read a folder that may come from anywhere.
SERVED_BY = {"img2seq.inference.from_run": 4365, "img2seq.inference.from_export": 3230}
# 75 let models be averaged: a picture in the size of each, and the step of a part of the pictures.
AVERAGED, ADDED_BY_AVERAGING = (
    "img2seq.inference.ensemble",
    190,
)  # loaded for several models only: lines beyond those of one
# 405 of these read a language model that is the decoder, cut it to a run's tokens, map images to its prefix, ask its cache and keep all of it where asked.
LANGUAGE_MODEL, ADDED_BY_A_LANGUAGE_MODEL = (
    {"img2seq.build.language_model", "img2seq.generation.language_model_step"},
    525,
)  # loaded for runs with such a decoder only: lines beyond those of others
BEFORE_ANY_CAPTION = {
    "img2seq.run.hub"
}  # fetches a folder, which is then read as any other: no picture and no caption passes it
NEVER_SERVED = ("data.sources", "data.pixels", "data.row_store", "data.vocabulary", "model.foreign_weights", "training", "report", "metrics", "export", "cli")  # fmt: skip


def module_name(path: Path) -> str:
    parts = path.relative_to(PACKAGE.parent).with_suffix("").parts
    return ".".join(parts[:-1] if parts[-1] == "__init__" else parts)


MODULES = {module_name(path): path for path in PACKAGE.rglob("*.py")}


def imports(*, for_types: bool = True) -> dict[str, set[str]]:
    """Return what each module of the package imports from it, late imports included, and unless told those for types alone."""
    found: dict[str, set[str]] = {}
    for name, path in MODULES.items():
        found[name] = set()
        tree = ast.parse(path.read_text(encoding="utf-8"))
        if not for_types:
            tree.body = [
                node for node in tree.body if not (isinstance(node, ast.If) and "TYPE_CHECKING" in ast.dump(node.test))
            ]
        for node in ast.walk(tree):
            targets: list[str] = []
            if isinstance(node, ast.Import):
                targets = [alias.name for alias in node.names]
            elif isinstance(node, ast.ImportFrom) and node.module:
                targets = [f"{node.module}.{alias.name}" for alias in node.names]
            for target in targets:
                while target and target not in MODULES:
                    target = target.rpartition(".")[0]
                if target and target != name:
                    found[name].add(target)
    found["img2seq"] = set()  # it looks its names up when they are used; only the version is read from it
    return found


def reachable(start: str, graph: dict[str, set[str]]) -> set[str]:
    """Return the modules that a module imports, and those that they import, and so on."""
    seen: set[str] = set()
    waiting = list(graph[start])
    while waiting:
        module = waiting.pop()
        if module not in seen:
            seen.add(module)
            waiting += graph[module]
    return seen


def room(module: str) -> str:
    parts = module.split(".")
    return parts[1] if len(parts) > 1 else "__init__"


def lines(module: str) -> int:
    return len(MODULES[module].read_text(encoding="utf-8").splitlines())


def served_caption(way: str) -> dict[str, int]:
    """Return the modules that a caption reaches which is served one of the two ways, with their lines."""
    graph = imports(for_types=False)
    graph[SERVED_CAPTION] -= {*SERVED_BY, AVERAGED} - {way}
    graph = {module: targets - LANGUAGE_MODEL for module, targets in graph.items()}
    reached = {SERVED_CAPTION, *reachable(SERVED_CAPTION, graph)} - BEFORE_ANY_CAPTION
    return {module: lines(module) for module in sorted(reached)}


def test_no_module_can_reach_itself() -> None:
    graph = imports()
    assert not [module for module in graph if module in reachable(module, graph)]


def test_dependencies_point_one_way() -> None:
    level = {name: i for i, rooms in enumerate(LEVELS) for name in rooms}
    assert {room(module) for module in MODULES} <= set(level), "a new room needs its place in LEVELS"
    wrong = []
    for module, targets in imports().items():
        for target in targets:
            here, there = room(module), room(target)
            forbidden = level[there] > level[here] or {here, there} in MAY_NOT_MEET
            if there != "__init__" and here != there and forbidden:
                wrong.append(f"{module} -> {target}")
    assert not wrong


def test_each_room_keeps_its_budget() -> None:
    taken: dict[str, int] = {}
    for module in MODULES:
        taken[room(module)] = taken.get(room(module), 0) + lines(module)
    over = {name: (taken[name], most) for rooms in LEVELS for name, most in rooms.items() if taken[name] > most}
    assert not over


@pytest.mark.parametrize("way", SERVED_BY)
def test_a_served_caption_reaches_little(way: str) -> None:
    reached = served_caption(way)
    assert sum(reached.values()) <= SERVED_BY[way], reached
    strangers = [m for m in reached for name in NEVER_SERVED if m.removeprefix("img2seq.").startswith(name)]
    assert not strangers


def test_averaging_models_adds_little_and_nothing_of_torch() -> None:
    of_one = served_caption("img2seq.inference.from_export")
    added = {AVERAGED, *reachable(AVERAGED, imports(for_types=False))} - set(of_one)
    assert sum(map(lines, added)) <= ADDED_BY_AVERAGING, added


def test_a_language_model_adds_no_reader_of_captions_and_nothing_of_training() -> None:
    graph = imports(for_types=False)
    of_others = served_caption("img2seq.inference.from_run")
    added = LANGUAGE_MODEL.union(*(reachable(module, graph) for module in LANGUAGE_MODEL))
    added -= {*of_others, *BEFORE_ANY_CAPTION}
    assert sum(map(lines, added)) <= ADDED_BY_A_LANGUAGE_MODEL, added
    assert not [m for m in added for name in NEVER_SERVED if m.removeprefix("img2seq.").startswith(name)]


def test_only_the_command_line_exits() -> None:
    guilty = []
    for path in MODULES.values():
        text = path.read_text(encoding="utf-8")
        if path != PACKAGE / "cli/main.py" and any(w in text for w in ("sys.exit", "os._exit", "raise SystemExit")):
            guilty.append(path.name)
    assert not guilty


def test_no_pickle_is_ever_loaded() -> None:
    for path in MODULES.values():
        text = path.read_text(encoding="utf-8")
        assert "import pickle" not in text
        if path.name != "foreign_weights.py":
            assert "torch.load" not in text, path
    assert "weights_only=True" in (PACKAGE / "model/foreign_weights.py").read_text(encoding="utf-8")


def test_a_module_only_defines() -> None:
    """Nothing is called for its effect while a module is imported, and no module is put into `sys.modules`."""
    guilty = []
    for name, path in MODULES.items():
        text = path.read_text(encoding="utf-8")
        if name == "img2seq.__main__":
            continue
        for node in ast.parse(text).body:
            is_docstring = isinstance(node, ast.Expr) and isinstance(node.value, ast.Constant)
            if isinstance(node, ast.Expr | ast.For | ast.While | ast.With | ast.Delete) and not is_docstring:
                guilty.append(f"{name}:{node.lineno}")
        if "sys.modules" in text:
            guilty.append(f"{name}: sys.modules")
    assert not guilty


STATE = """
import csv, gc, json, locale, os, random, signal, sys, warnings
def state():
    return [csv.field_size_limit(), gc.isenabled(), gc.get_freeze_count(), dict(os.environ), locale.setlocale(locale.LC_ALL),
        [str(signal.getsignal(s)) for s in (signal.SIGINT, signal.SIGTERM)], hash(random.getstate()), sys.getrecursionlimit()]
import torch, timm, torchvision, onnxruntime, matplotlib.pyplot  # what they do at import is theirs
before, filters = state(), list(warnings.filters)
import importlib
for name in json.loads(sys.argv[1]):
    importlib.import_module(name)
from img2seq.errors import Img2SeqError
stands = [name for name, m in sys.modules.items() if type(m).__module__.startswith("img2seq")]
print(json.dumps({"same": state() == before, "filters": warnings.filters == filters, "stand-ins": stands, "threads": torch.get_num_threads()}))
"""


def test_importing_changes_nothing_of_the_process() -> None:
    names = json.dumps([name for name in MODULES if not name.endswith("__main__")])
    environment = {"PYTHONPATH": str(ROOT / "src"), "PATH": "/usr/bin:/bin", "OMP_NUM_THREADS": "1", "HOME": "/tmp"}
    done = subprocess.run(
        [sys.executable, "-c", STATE, names], capture_output=True, text=True, check=False, env=environment
    )
    assert done.returncode == 0, done.stderr
    assert json.loads(done.stdout) == {"same": True, "filters": True, "stand-ins": [], "threads": 1}


def main() -> None:
    """Print what the docs and closing notes quote."""
    for rooms in LEVELS:
        for name, most in rooms.items():
            of_room = [lines(module) for module in MODULES if room(module) == name]
            print(f"{name:<12}{len(of_room):>4} files {sum(of_room):>6} lines, budget {most}")
    print(f"{'all':<12}{len(MODULES):>4} files {sum(map(lines, MODULES)):>6} lines")
    for way in SERVED_BY:
        reached = served_caption(way)
        print(
            f"a caption {way.rpartition('.')[2].replace('_', ' ')} reaches {len(reached)} modules, {sum(reached.values()):,} lines:"
        )
        for module, n in sorted(reached.items(), key=lambda item: -item[1]):
            print(f"  {n:>4}  {module}")


if __name__ == "__main__":
    main()
