"""The learning rate at each step: a pure function of the step, but for the falls of `plateau`."""

from __future__ import annotations

import math

from img2seq.config.globals import LRSchedule, Optimization

CYCLE_RISE = 0.3  # share of the run in which a cycle rises (Smith and Topin 2019)


def warmup_steps(config: LRSchedule, optimization: Optimization, n_steps: int) -> int:
    """Return how many steps warm up. "auto" is 2 / (1 - b2) (Ma and Yarats 2021), at most a twentieth of the run."""
    if config.warmup_steps == "auto":
        return min(round(2 / (1 - optimization.b2)), n_steps // 20)
    return min(config.warmup_steps, n_steps)


def learning_rate(
    step: int, n_steps: int, config: LRSchedule, optimization: Optimization, *, n_falls: int = 0
) -> float:
    """Return the rate of a step.

    Args:
        step: from 1.
        n_steps: of the whole run.
        config: which schedule.
        optimization: the highest and lowest rate.
        n_falls: how often `plateau` has lowered the rate so far.
    """
    highest, lowest = optimization.lr, optimization.lr_lb
    if config.lr_schedule == "cycle":
        rise = max(1, round(CYCLE_RISE * n_steps))
        if step <= rise:
            return lowest + (highest - lowest) * step / rise
        return _cosine(highest, lowest, (step - rise) / max(1, n_steps - rise))
    warmup = warmup_steps(config, optimization, n_steps)
    if step <= warmup:
        return lowest + (highest - lowest) * step / warmup
    if config.lr_schedule == "cosine":
        return _cosine(highest, lowest, (step - warmup) / max(1, n_steps - warmup))
    if config.lr_schedule == "plateau":
        return max(lowest, highest * config.lr_plateau_factor**n_falls)
    return highest


def _cosine(highest: float, lowest: float, progress: float) -> float:
    return lowest + (highest - lowest) * (1 + math.cos(math.pi * min(1.0, progress))) / 2
