"""torch's compiler stays out of what compiles nothing, and is there for whoever asks."""

from __future__ import annotations

import os
import subprocess
import sys

from conftest import ROOT

WITHOUT = """
import sys
from img2seq.model.compiler import without_compiler
from img2seq.model.encoder import ImageEncoder
encoder = ImageEncoder("resnet18", height=32, width=32, mean=[0.5] * 3, std=[0.5] * 3)
import torch
with without_compiler():
    optimizer = torch.optim.AdamW(encoder.parameters())
    encoder(torch.zeros(2, 3, 32, 32, dtype=torch.uint8)).sum().backward()
    optimizer.step()
    optimizer.zero_grad()
    optimizer.load_state_dict(optimizer.state_dict())
import img2seq.training.loop
"""


def modules_after(code: str) -> set[str]:
    environment = os.environ | {"PYTHONPATH": str(ROOT / "src"), "OMP_NUM_THREADS": "1"}
    code = f"import warnings; warnings.simplefilter('error')\n{code}\nimport sys; print(*sys.modules)"
    done = subprocess.run([sys.executable, "-c", code], env=environment, capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr
    return set(done.stdout.split())


def test_the_compiler_stays_out_of_what_compiles_nothing() -> None:
    loaded = modules_after(WITHOUT)
    assert "timm" in loaded
    assert not {"torch._dynamo", "sympy", "torch.distributed.tensor", "matplotlib"} & loaded


def test_whoever_asks_gets_the_compiler() -> None:
    ask = """
import torch
from img2seq.model.compiler import without_compiler
with without_compiler():
    from torch._dynamo.utils import is_compile_supported
    assert "sympy" not in sys.modules
    assert is_compile_supported("cpu") in (True, False)
    assert torch._dynamo.config.recompile_limit
assert torch.compile(lambda x: 2 * x, backend="eager")(torch.ones(2)).sum() == 4
"""
    assert "sympy" in modules_after(f"import sys{ask}")
    assert "sympy" in modules_after(f"{WITHOUT}\ntorch.compile(encoder, backend='eager')")
