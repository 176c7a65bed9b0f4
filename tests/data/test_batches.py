"""Order, windows, packing and augmentation: pure functions of seed, epoch and image."""

from __future__ import annotations

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from img2seq.data.augment import OPERATIONS, trivial_augment
from img2seq.data.batch import collate
from img2seq.data.caption_set import CaptionSet, ImageRows
from img2seq.data.image import ImageSpec
from img2seq.data.order import training_plan, validation_plan
from img2seq.data.seeds import generator
from img2seq.data.tokenizer import BOS, EOS
from img2seq.data.vocabulary import learn_words
from img2seq.model.packing import pack

COUNTS = st.lists(st.integers(1, 7), min_size=1, max_size=20)


def bounds(counts: list[int]) -> np.ndarray:
    return np.cumsum([0, *counts])


@given(COUNTS, st.integers(1, 12), st.integers(1, 6), st.integers(0, 3))
def test_every_caption_comes_once_an_epoch_in_batches_that_are_not_too_large(
    counts: list[int], batch_size: int, per_image: int, epoch: int
) -> None:
    plan = training_plan(bounds(counts), batch_size=batch_size, captions_per_image=per_image, seed=1, epoch=epoch)
    captions = [caption for batch in plan for group in batch for caption in group.captions]
    assert sorted(captions) == list(range(sum(counts)))
    for batch in plan:
        assert 1 <= sum(len(group.captions) for group in batch) <= batch_size
        assert all(len(group.captions) <= min(per_image, batch_size) for group in batch)
        assert all(bounds(counts)[g.image] <= c < bounds(counts)[g.image + 1] for g in batch for c in g.captions)


def test_the_order_depends_on_seed_and_epoch_alone() -> None:
    def plan(seed: int, epoch: int) -> object:
        return training_plan(bounds([5] * 30), batch_size=20, captions_per_image=5, seed=seed, epoch=epoch)

    assert plan(0, 0) == plan(0, 0)
    assert plan(0, 0) != plan(0, 1)
    assert plan(0, 0) != plan(1, 0)


@given(COUNTS, st.integers(1, 8))
def test_validation_sees_every_image_once_in_order(counts: list[int], batch_size: int) -> None:
    plan = validation_plan(bounds(counts), batch_size=batch_size)
    assert [group.image for batch in plan for group in batch] == list(range(len(counts)))


def small_set(
    *,
    max_length: int = 30,
    uniform: bool = False,
    auto_augment: bool = False,
    approach: str = "resize",
    flip: bool = False,
) -> CaptionSet:
    captions = {f"im{i}": [" ".join("abcdefg"[: 1 + (i + k) % 7]) for k in range(1 + i % 3)] for i in range(9)}
    tokenizer = learn_words(["a b c d e f g"], split_on=" ", min_freq=1)
    spec = ImageSpec(8, 8, resize_approach=approach)  # type: ignore[arg-type]
    pixels = generator("pixels").integers(0, 255, (9, *spec.stored_shape), dtype=np.uint8)
    rows = ImageRows(pixels, np.arange(9), spec, auto_augment, flip)
    return CaptionSet(captions, tokenizer, max_length=max_length, images={"photo": rows}, uniform=uniform)


def test_a_packed_batch_holds_each_caption_from_begin_to_end_and_nothing_else() -> None:
    data = small_set()
    batch = pack(data.batch(validation_plan(data.captions_of, batch_size=100)[0]))
    S, T = batch.caption_shape
    B, Q = batch.image_shape
    assert (B, T) == (9, 32)
    assert data.n_captions > S  # captions share rows
    table = torch.full((S * T,), -1).index_copy(0, batch.caption_slots, batch.input_ids)
    targets = torch.full((S * T,), -1).index_copy(0, batch.caption_slots, batch.target_ids)
    begins = iter((table == BOS).nonzero().flatten().tolist())
    for texts in data.captions:
        for text in texts:
            n, begin = len(text.split()), next(begins)
            assert begin // T == (begin + n) // T  # whole, in one row
            assert targets[begin + n] == EOS
            assert torch.equal(table[begin + 1 : begin + n + 1], targets[begin : begin + n])
            seen = batch.may_see.view(S * T, T)[begin : begin + n + 1]
            own = torch.arange(T) - begin % T
            assert torch.equal(seen, (own >= 0) & (own <= torch.arange(n + 1).unsqueeze(1)))
    assert next(begins, None) is None
    assert (table >= 0).sum() == len(batch.input_ids)
    assert batch.may_see.any(2).all()
    assert len(batch.image_slots.unique()) == len(batch.image_slots)
    assert torch.equal(batch.image_slots // Q, batch.image_of_token)


def test_a_long_caption_has_a_row_of_its_own() -> None:
    lines = [[5] * n for n in (3, 40, 38, 2)]
    batch = pack(collate(("a",), [[(line, line, 0) for line in lines]]))
    assert batch.caption_shape == (3, 40)
    assert [int(slot) for slot, place in zip(batch.caption_slots, batch.positions, strict=True) if place == 0] == [
        0,
        40,
        80,
        118,
    ]


def test_a_window_of_a_longer_caption_has_no_false_begin_or_end() -> None:
    data = small_set(max_length=3, uniform=True)
    long = next(
        i for i in range(data.n_captions) if len(data.stream(i, None)[0]) == 3 and data.stream(i, None)[1][-1] != EOS
    )
    line = [BOS, *data._tokens[data._starts[long] : data._starts[long + 1]].tolist(), EOS]
    seen = set()
    for epoch in range(200):
        inputs, targets, first = data.stream(long, epoch)
        assert inputs == line[first : first + 3]
        assert targets == line[first + 1 : first + 4]
        seen.add(first)
    assert seen == set(range(len(line) - 3))  # every window, the last word's included
    assert data.stream(long, None)[2] == 0


@pytest.mark.parametrize("workers", [1, 2, 5])
def test_the_number_of_workers_changes_nothing(workers: int) -> None:
    data = small_set(auto_augment=True, flip=True, approach="randomcrop", uniform=True, max_length=4)
    plan = training_plan(data.captions_of, batch_size=4, captions_per_image=2, seed=0, epoch=3)
    for one, other in zip(data.batches(plan, epoch=3), data.batches(plan, epoch=3, workers=workers), strict=True):
        assert one.image_ids == other.image_ids
        assert torch.equal(one.input_ids, other.input_ids)
        assert torch.equal(one.pixels["photo"], other.pixels["photo"])


def test_augmentation_changes_with_the_epoch_and_never_the_validation() -> None:
    data = small_set(auto_augment=True, flip=True, approach="randomcrop")
    groups = validation_plan(data.captions_of, batch_size=100)[0]
    first, second, plain = (data.batch(groups, epoch=epoch).pixels["photo"] for epoch in (0, 1, None))
    assert first.shape == second.shape == plain.shape == (9, 3, 8, 8)
    assert not torch.equal(first, second)
    assert torch.equal(plain, data.batch(groups).pixels["photo"])
    assert torch.equal(first, data.batch(groups, epoch=0).pixels["photo"])


def test_features_are_mirrored_where_pixels_would_be() -> None:
    pixels = generator("pixels").integers(0, 255, (9, 8, 8, 3), dtype=np.uint8)
    features = np.arange(9 * 2).reshape(9, 2, 1, 1).astype(np.float16)  # image i: 2 i, mirrored 2 i + 1
    row_of, names = np.array([3, 8, 0, 5, 1, 2, 7, 4, 6]), [f"im{i}" for i in range(9)]
    plain = ImageRows(pixels, row_of, ImageSpec(8, 8), False, True)
    cached = ImageRows(features, row_of, ImageSpec(8, 8), False, True, are_features=True)
    for epoch in (0, 1, None):
        images = plain.read(range(9), names, seed=0, epoch=epoch).permute(0, 2, 3, 1).numpy()
        mirrored = [not np.array_equal(image, pixels[row]) for image, row in zip(images, row_of, strict=True)]
        found = cached.read(range(9), names, seed=0, epoch=epoch).flatten().tolist()
        assert found == [2 * row + flip for row, flip in zip(row_of.tolist(), mirrored, strict=True)]
        assert 0 < sum(mirrored) < 9 or epoch is None


def test_shuffled_images_leave_no_caption_with_its_own() -> None:
    data = small_set()
    other = data.with_shuffled_images()
    before, after = data.images["photo"].row_of, other.images["photo"].row_of
    assert (before != after).all()
    assert sorted(before) == sorted(after)


@given(st.integers(0, 10_000), st.sampled_from([1, 3, 4]))
@settings(max_examples=60, deadline=None)
def test_augmentation_keeps_shape_type_and_alpha(seed: int, channels: int) -> None:
    pixels = generator("p", seed).integers(0, 255, (9, 11, channels), dtype=np.uint8)
    changed = trivial_augment(pixels, generator("a", seed))
    assert (changed.shape, changed.dtype) == (pixels.shape, pixels.dtype)
    if channels == 4:
        assert np.array_equal(changed[..., 3], pixels[..., 3])


def test_every_operation_is_drawn_about_equally_often() -> None:
    drawn = [int(generator("augment", 0, 0, str(i)).integers(len(OPERATIONS))) for i in range(2800)]
    counts = np.bincount(drawn, minlength=len(OPERATIONS))
    assert ((counts - 200) ** 2 / 200).sum() < 34.5  # chi-square, 13 degrees of freedom, p = 0.001
