"""The steps of a run: as many as were counted before the first, whatever the data, and a position after each is one to resume from."""

from __future__ import annotations

import itertools
import math
from types import SimpleNamespace
from typing import Any

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from img2seq.config.globals import BasicExperiment
from img2seq.data.caption_set import CaptionSet
from img2seq.data.order import Group, share, training_plan
from img2seq.data.vocabulary import learn_words
from img2seq.errors import ModelError, RunError
from img2seq.training.distributed import ALONE, World
from img2seq.training.loop import Trainer
from img2seq.training.state import TrainState
from img2seq.training.work import WorkPlan

COUNTS = st.lists(st.integers(1, 7), min_size=2, max_size=14)
SIZES = {"batch_size": st.integers(1, 12), "captions_per_image": st.integers(1, 6)}


def captions(counts: list[int]) -> CaptionSet:
    texts = {f"im{i}": [f"a b {k}" for k in range(n)] for i, n in enumerate(counts)}
    tokenizer = learn_words(["a b"], split_on=" ", min_freq=1)
    return CaptionSet(texts, tokenizer, max_length=9, images={})


def work(data: CaptionSet, accumulate: int = 1, world: World = ALONE, fewest: int = 1, **basic: Any) -> WorkPlan:
    return WorkPlan(data, BasicExperiment(output_folder="run", **basic), accumulate, world, fewest_images=fewest)


def walk(plan: WorkPlan, n_epochs: int) -> list[tuple[int, int, int]]:
    """Return the (step, epoch, batch) after each step, as the training loop counts them."""
    positions, step = [], 0
    for epoch in range(n_epochs):
        batch = 0
        for of_step in plan.steps(epoch, done=0):
            step, batch = step + 1, batch + len(of_step.batches)
            positions.append((step, epoch, batch))
    return positions


def is_accepted(plan: WorkPlan, step: int, epoch: int, batch: int) -> bool:
    said: list[str] = []
    announce = SimpleNamespace(warn=said.append)
    trainer = SimpleNamespace(work=plan, state=TrainState(step=step, epoch=epoch, batch=batch), announce=announce)
    try:
        Trainer._check_position(trainer, SimpleNamespace(path="step"))  # type: ignore[arg-type]
    except RunError:
        return False
    return not said


@given(
    COUNTS,
    st.integers(1, 3),
    st.integers(1, 5),
    st.integers(0, 3),
    st.sampled_from([1, 2]),
    st.fixed_dictionaries(SIZES),
)
@settings(deadline=None, max_examples=150)
def test_as_many_steps_are_taken_as_were_counted_and_each_can_be_resumed_from(
    counts: list[int], accumulate: int, n_epochs: int, seed: int, fewest: int, basic: dict[str, int]
) -> None:
    plan = work(captions(counts), accumulate, ALONE, fewest, n_epochs=n_epochs, seed=seed, **basic)
    positions = walk(plan, n_epochs)
    assert len(positions) == plan.n_steps
    assert all(is_accepted(plan, *position) for position in positions)
    for step, epoch, batch in positions:
        left = sum(1 for _ in plan.steps(epoch, done=batch)) + (n_epochs - epoch - 1) * (plan.n_steps // n_epochs)
        assert step + left == plan.n_steps


@given(COUNTS, st.integers(2, 3), st.fixed_dictionaries(SIZES), st.sampled_from([1, 2]))
@settings(deadline=None, max_examples=50)
def test_processes_take_the_same_steps_and_share_each_batch(
    counts: list[int], size: int, basic: dict[str, int], fewest: int
) -> None:
    data = captions(counts)
    plans = [work(data, 2, World(rank, size), fewest, n_epochs=2, **basic) for rank in range(size)]
    whole = work(data, 2, ALONE, fewest, n_epochs=2, **basic)
    assert {plan.n_steps for plan in plans} == {whole.n_steps}
    for epoch in range(2):
        for alone, *parts in zip(whole.steps(epoch, done=0), *(p.steps(epoch, done=0) for p in plans), strict=True):
            for place, batch in enumerate(alone.batches):
                shares = [part.batches[place].image_ids for part in parts if part.counts[place]]
                assert tuple(image_id for ids in shares for image_id in ids) == batch.image_ids
            assert all(len(batch.image_ids) >= fewest for part in [alone, *parts] for batch in part.batches)


def test_captions_per_image_that_do_not_divide_the_captions() -> None:
    """The row of a run that could not be resumed: 475, 475, 475, 476, 475 ... batches."""
    starts = np.arange(0, 30001, 5)
    lengths = {
        len(training_plan(starts, batch_size=64, captions_per_image=3, seed=0, epoch=epoch)) for epoch in range(8)
    }
    assert lengths == {475}


def natural_order(starts: list[int], batch_size: int, per_image: int, seed: int, epoch: int) -> list[list[Group]]:
    """Return the plan of the first versions: a permutation of the groups, cut."""
    from img2seq.data.seeds import generator

    rng, groups, size = generator("order", seed, epoch), [], min(per_image, batch_size)
    for image, (first, last) in enumerate(itertools.pairwise(starts)):
        places = list(range(first, last))
        if last - first > size:
            places = [first + int(i) for i in rng.permutation(last - first)]
        groups += [Group(image, tuple(places[i : i + size])) for i in range(0, len(places), size)]
    plan: list[list[Group]] = []
    for i in rng.permutation(len(groups)):
        if not plan or sum(len(g.captions) for g in plan[-1]) + len(groups[i].captions) > batch_size:
            plan.append([])
        plan[-1].append(groups[i])
    return plan


@given(COUNTS, st.integers(1, 12), st.integers(1, 6), st.integers(0, 5))
@settings(deadline=None)
def test_epochs_that_were_equally_long_keep_their_order(
    counts: list[int], batch_size: int, per_image: int, seed: int
) -> None:
    starts = np.cumsum([0, *counts])
    before = [natural_order(starts.tolist(), batch_size, per_image, seed, epoch) for epoch in range(4)]
    now = [
        training_plan(starts, batch_size=batch_size, captions_per_image=per_image, seed=seed, epoch=epoch)
        for epoch in range(4)
    ]
    assert {len(plan) for plan in now} == {len(before[0])}
    for old, new in zip(before, now, strict=True):
        assert new == old or len(old) != len(new)


def test_epochs_of_mixed_sizes_still_differ() -> None:
    starts = np.arange(0, 501, 5)
    plans = [training_plan(starts, batch_size=7, captions_per_image=3, seed=0, epoch=epoch) for epoch in range(6)]
    assert len({str(plan) for plan in plans}) == 6
    for plan in plans:
        assert sorted(c for batch in plan for group in batch for c in group.captions) == list(range(500))


@pytest.mark.parametrize("counts", [[5] * 40, [4, 5, 6, 7] * 10], ids=["equal", "mixed"])
def test_nothing_is_planned_for_all_epochs_before_the_first_step(
    counts: list[int], monkeypatch: pytest.MonkeyPatch
) -> None:
    planned = []

    def noted(starts: np.ndarray, **options: Any) -> Any:
        planned.append(options["epoch"])
        return training_plan(starts, **options)

    monkeypatch.setattr("img2seq.training.work.training_plan", noted)
    plan = work(captions(counts), 2, n_epochs=10**12, batch_size=16)
    assert plan.n_steps == 10**12 * math.ceil(plan.n_batches / 2)
    next(plan.steps(0, done=0))
    assert set(planned) == {0}


def test_a_batch_of_one_image_joins_its_neighbour() -> None:
    data = captions([1] * 9)
    assert [len(w.batches[0].image_ids) for w in work(data, batch_size=4).steps(0, done=0)] == [4, 4, 1]
    joined = work(data, batch_size=4, fewest=2)
    assert [len(w.batches[0].image_ids) for w in joined.steps(0, done=0)] == [4, 5]
    assert (joined.n_batches, joined.n_joined) == (2, 1)
    without = work(captions([1] * 8), batch_size=4, fewest=2)
    assert [w.image_ids for w in without.steps(0, done=0)] == [
        w.image_ids for w in work(captions([1] * 8), batch_size=4).steps(0, done=0)
    ]
    with pytest.raises(ModelError, match="there is but one"):
        work(captions([3]), batch_size=4, fewest=2)


@given(st.lists(st.integers(1, 5), min_size=1, max_size=9), st.integers(1, 4))
def test_parts_end_to_end_are_the_batch_and_none_has_one_group(sizes: list[int], n: int) -> None:
    groups = [Group(i, tuple(range(size))) for i, size in enumerate(sizes)]
    for fewest in (1, 2):
        parts = [share(groups, rank, n, fewest) for rank in range(n)]
        assert [group for part in parts for group in part] == groups
        assert fewest == 1 or len(groups) == 1 or not any(len(part) == 1 for part in parts)


def test_positions_of_earlier_versions_are_resumed_with_a_warning() -> None:
    mixed, equal = work(captions([5] * 60), batch_size=7, captions_per_image=3), work(captions([5] * 60), batch_size=7)
    for plan, taken in ((mixed, True), (equal, False)):
        said: list[str] = []
        state = TrainState(step=plan.steps_before(4, 3) + 2, epoch=4, batch=3)  # two more than are counted now
        trainer = SimpleNamespace(work=plan, state=state, announce=SimpleNamespace(warn=said.append))
        if taken:
            Trainer._check_position(trainer, SimpleNamespace(path="step"))  # type: ignore[arg-type]
            assert len(said) == 1
        else:
            with pytest.raises(RunError, match="not the state of a training run"):
                Trainer._check_position(trainer, SimpleNamespace(path="step"))  # type: ignore[arg-type]
