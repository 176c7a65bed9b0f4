"""IMG2SEQ_PLAIN turns each speed-up off, and what runs then is torch's own."""

from __future__ import annotations

import ctypes
import gc
import subprocess
import sys
from collections.abc import Callable
from typing import Any

import pytest
import torch
import torch.nn.functional as F
from torch import nn

from conftest import ROOT
from img2seq.data.batch import collate
from img2seq.errors import ConfigError
from img2seq.model import onnx_encoder
from img2seq.model.attention import PackedAttention
from img2seq.model.cpu import switch
from img2seq.model.cpu.collector import collector_paused
from img2seq.model.cpu.convolution import Conv2d
from img2seq.model.cpu.dropout import Dropout
from img2seq.model.cpu.memory import keep_freed_memory
from img2seq.model.decoder import Decoder
from img2seq.model.encoder import ImageEncoder
from img2seq.model.packing import pack


def test_all_are_on_unless_named(monkeypatch: pytest.MonkeyPatch) -> None:
    def on(text: str) -> set[str]:
        monkeypatch.setenv("IMG2SEQ_PLAIN", text)
        return {name for name in switch.NAMES if switch.is_on(name)}

    every = set(switch.NAMES)
    assert on("") == on("0") == every
    assert on("1") == set()
    assert on("winograd, dropout") == every - {"winograd", "dropout"}
    for name in switch.NAMES:
        assert on(name) == every - {name}
    monkeypatch.delenv("IMG2SEQ_PLAIN")
    assert switch.is_on("winograd")


@pytest.mark.parametrize("text", ["winogrand", "dropout,winogrand"])
def test_an_unknown_name_is_an_error_with_the_nearest(text: str, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("IMG2SEQ_PLAIN", text)
    with pytest.raises(ConfigError, match=r"IMG2SEQ_PLAIN: .*found 'winogrand'. Did you mean 'winograd'\?"):
        switch.is_on("dropout")


def test_names_are_checked_once(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("IMG2SEQ_PLAIN", "dropout")
    switch._plain.cache_clear()
    for _ in range(3):
        switch.is_on("winograd")
    assert switch._plain.cache_info().misses == 1


def test_the_switch_loads_nothing_heavy() -> None:
    code = "import sys, img2seq.model.cpu.switch; print(*sys.modules)"
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True, env={"PYTHONPATH": str(ROOT / "src")})  # fmt: skip
    assert not {"torch", "numpy"} & set(done.stdout.split())


def _attend() -> object:
    batch = pack(collate(("a",), [[([1] * 5, [1] * 5, 0)]]))
    return PackedAttention(batch, 2, []).attend_to_caption(0, torch.randn(5, 3 * 4))


# What is called, and of what the speed-up takes another way than the plain one: torch's own where it is off.
WAYS: list[tuple[switch.SpeedUp, Callable[[], object], object, str]] = [
    ("winograd", lambda: Conv2d(32, 32, 3, padding=1)(torch.randn(12, 32, 4, 4)), nn.Conv2d, "forward"),
    ("taps", lambda: Conv2d(8, 8, 3, padding=1)(torch.randn(2, 8, 2, 2)), nn.Conv2d, "forward"),
    ("attention_products", _attend, F, "scaled_dot_product_attention"),
    ("dropout", lambda: Dropout(0.5)(torch.ones(3)), F, "dropout"),
]


@pytest.mark.parametrize(("name", "call", "owner", "plain"), WAYS, ids=[way[0] for way in WAYS])
def test_the_plain_way_is_taken_only_where_it_is_off(
    name: switch.SpeedUp, call: Callable[[], object], owner: Any, plain: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    taken = []
    function = getattr(owner, plain)

    def noting(*arguments: Any, **options: Any) -> Any:
        taken.append(name)
        return function(*arguments, **options)

    monkeypatch.setattr(owner, plain, noting)
    for text, expected in (("", 0), (name, 1), ("1", 1)):
        monkeypatch.setenv("IMG2SEQ_PLAIN", text)
        taken.clear()
        call()
        assert len(taken) == expected, text


def test_memory_is_the_system_s_where_that_is_off(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("IMG2SEQ_PLAIN", "memory")
    monkeypatch.setattr(ctypes, "CDLL", None)
    assert not keep_freed_memory()


def test_weights_stay_where_their_layout_is_off(monkeypatch: pytest.MonkeyPatch) -> None:
    decoder = Decoder(
        vocabulary=9, width=8, n_layers=1, n_heads=2, feedforward=16, dropout=0.0, position_dropout=0.0, position="encode",
        n_positions=9, has_memory=False,
    )  # fmt: skip
    weight = decoder.get_submodule("blocks.0.self_qkv").weight
    assert isinstance(weight, nn.Parameter)
    monkeypatch.setenv("IMG2SEQ_PLAIN", "decoding_layout")
    decoder.lay_out_for_decoding()
    assert weight.is_contiguous()
    monkeypatch.delenv("IMG2SEQ_PLAIN")
    decoder.lay_out_for_decoding()
    assert not weight.is_contiguous()


def test_the_collector_runs_where_its_pause_is_off(monkeypatch: pytest.MonkeyPatch) -> None:
    frozen: list[bool] = []
    monkeypatch.setattr(gc, "freeze", lambda: frozen.append(True))  # for good: later tests would keep what is garbage
    monkeypatch.setenv("IMG2SEQ_PLAIN", "collector")
    with collector_paused():
        assert gc.isenabled()
    assert not frozen
    monkeypatch.delenv("IMG2SEQ_PLAIN")
    with collector_paused():
        assert not gc.isenabled()
    assert gc.isenabled()
    assert frozen


def test_torch_encodes_where_the_runtime_is_off(monkeypatch: pytest.MonkeyPatch) -> None:
    encoder = ImageEncoder("test_resnet", height=32, width=32, mean=[0.5] * 3, std=[0.5] * 3).eval()
    monkeypatch.setattr(onnx_encoder, "_Session", None)
    monkeypatch.setenv("IMG2SEQ_PLAIN", "onnx_encoder")
    assert not onnx_encoder.accelerate(encoder)
