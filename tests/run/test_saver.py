"""Checkpoints written beside training: what is saved is what was there, and nothing that goes wrong is lost."""

from __future__ import annotations

import threading
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch
from safetensors.torch import load_file
from torch import Tensor

from img2seq.errors import ModelError, RunError
from img2seq.run import checkpoint as checkpoints
from img2seq.run import save_checkpoint
from img2seq.run.saver import Saver
from img2seq.run.snapshot import Snapshot


class Gate:
    """Holds a write back until it is opened."""

    def __init__(self, patch: pytest.MonkeyPatch):
        self.reached, self.opened = threading.Event(), threading.Event()
        real = save_checkpoint.save

        def save(*arguments: Any) -> checkpoints.Checkpoint:
            self.reached.set()
            assert self.opened.wait(60)
            return real(*arguments)

        patch.setattr(save_checkpoint, "save", save)


def weights() -> dict[str, Tensor]:
    channels_last = torch.arange(48.0).view(2, 3, 2, 4).to(memory_format=torch.channels_last)
    return {"w": torch.ones(5), "c": channels_last, "s": torch.tensor(3)}


def test_what_is_saved_is_what_was_there_when_it_was_asked_for(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    gate, model, optimizer = Gate(monkeypatch), weights(), {"m": torch.zeros(5)}
    expected = {name: tensor.clone() for name, tensor in model.items()}
    with Saver(tmp_path, 1) as saver:
        saver.save(7, model, optimizer, {"valid_loss": None})
        assert gate.reached.wait(60)  # `save` has returned, and nothing is written yet
        for tensor in (*model.values(), *optimizer.values()):
            tensor.add_(100)
        gate.opened.set()
    (saved,) = checkpoints.all_checkpoints(tmp_path)
    assert all(torch.equal(tensor, expected[name]) for name, tensor in load_file(saved.weights).items())
    assert torch.equal(load_file(saved.training)["m"], torch.zeros(5))


def test_one_checkpoint_is_written_at_a_time_and_the_end_waits(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    gate = Gate(monkeypatch)
    second_is_taken = threading.Event()
    saver = Saver(tmp_path, 1)

    def train() -> None:
        with saver:
            saver.save(1, weights(), {}, {"valid_loss": 2.0})
            saver.save(2, weights(), {}, {"valid_loss": 3.0})
            second_is_taken.set()

    training = threading.Thread(target=train)
    training.start()
    assert gate.reached.wait(60)
    assert not second_is_taken.is_set()
    gate.opened.set()
    training.join(60)
    assert [c.step for c in checkpoints.all_checkpoints(tmp_path)] == [1, 2]  # the best one, and the newest


def broken(*_: Any) -> checkpoints.Checkpoint:
    raise RunError("the disk is full")


def fail() -> None:
    raise ModelError("loss is not finite")


@pytest.mark.parametrize("then", ["check", "save", "wait", "leave", "fail"])
def test_a_write_that_failed_is_raised_wherever_training_comes_by_next(
    then: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(save_checkpoint, "save", broken)
    saver = Saver(tmp_path, 1)
    saver.save(1, weights(), {}, {})
    assert saver._writing is not None
    saver._writing.exception(60)
    asked: dict[str, Callable[[], object]] = {
        "check": saver.check,
        "save": lambda: saver.save(2, weights(), {}, {}),
        "wait": saver.wait,
        "leave": lambda: None,
        "fail": fail,
    }
    with pytest.raises(RunError, match="the disk is full"), saver:
        asked[then]()


def test_what_is_saved_after_room_was_made_is_the_same(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    begin, made = threading.Event(), []
    real = Snapshot.make_room

    def make_room(snapshot: Snapshot, given: dict[str, Tensor]) -> None:
        if given and threading.current_thread() is not threading.main_thread():
            assert begin.wait(60)
            made.append(list(given))
        real(snapshot, given)

    monkeypatch.setattr(Snapshot, "make_room", make_room)
    with Saver(tmp_path, 1) as saver:
        saver.prepare(weights(), {"m": torch.zeros(5)})
        assert saver.is_prepared
        assert made == []  # nobody waits for it
        begin.set()
        saver.save(1, weights(), {"m": torch.ones(5)}, {"valid_loss": None})
        assert made == [["w", "c", "s"], ["m"]]
    (saved,) = checkpoints.all_checkpoints(tmp_path)
    assert all(torch.equal(tensor, weights()[name]) for name, tensor in load_file(saved.weights).items())
    assert torch.equal(load_file(saved.training)["m"], torch.ones(5))


def test_checking_does_not_wait(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    gate = Gate(monkeypatch)
    with Saver(tmp_path, 1) as saver:
        saver.save(1, weights(), {}, {"valid_loss": None})
        assert gate.reached.wait(60)
        saver.check()
        assert checkpoints.all_checkpoints(tmp_path) == []
        gate.opened.set()
    assert len(checkpoints.all_checkpoints(tmp_path)) == 1


@pytest.mark.parametrize("place", [0, -1, None], ids=["first byte", "last byte", "a byte more"])
@pytest.mark.parametrize("name", [*checkpoints.FILES, "manifest.json"])
def test_nothing_old_goes_before_the_new_one_has_been_read_back(
    name: str, place: int | None, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    with Saver(tmp_path, 1) as saver:
        saver.save(1, weights(), {}, {"valid_loss": None})

    def bad_disk(path: Path) -> None:
        if path.name == name:
            content = bytearray(path.read_bytes())
            if place is None:
                content += b"x"
            else:
                content[place] ^= 1
            path.write_bytes(content)

    monkeypatch.setattr("img2seq.run.save_checkpoint.to_disk", bad_disk)
    with pytest.raises(RunError, match=f"read back, it is .*{name}"), Saver(tmp_path, 1) as saver:
        saver.save(2, weights(), {}, {"valid_loss": None})
    assert [path.name for path in tmp_path.iterdir()] == ["step-00000001"]
    found = save_checkpoint.newest_valid(tmp_path, lambda _: None)
    assert found is not None
    assert found.step == 1
