"""Optimisers by their names in the configuration."""

from __future__ import annotations

from collections.abc import Iterable
from typing import Any

import torch
from torch import Tensor
from torch.optim import SGD, Adam, AdamW, Optimizer

from img2seq.config.globals import Optimization
from img2seq.model.caption_model import CaptionModel
from img2seq.training.parallel import is_sharded, local


class AdaBelief(Optimizer):
    """AdaBelief (Zhuang 2020): Adam whose step shrinks where gradients differ from their mean.

    Differs from the authors' package in that the rectified warm-up is left out; the schedule warms up.

    Args:
        params: parameters or groups.
        lr: learning rate.
        betas: decay of the mean, and of the squared distance from it.
        eps: added to that distance.
        weight_decay: through the gradient, or apart from it where `decoupled`.
        decoupled: see weight_decay.
    """

    def __init__(
        self,
        params: Iterable[Any],
        lr: float,
        betas: tuple[float, float],
        eps: float = 1e-16,
        weight_decay: float = 0.0,
        decoupled: bool = True,
    ):
        super().__init__(
            params, {"lr": lr, "betas": betas, "eps": eps, "weight_decay": weight_decay, "decoupled": decoupled}
        )

    @torch.no_grad()
    def step(self, closure: Any = None) -> None:  # type: ignore[override]
        """Update every parameter that has a gradient. Gradients are used up: they hold other numbers afterwards."""
        for group in self.param_groups:
            by_step: dict[float, list[Tensor]] = {}  # one number but where gradients began later
            for p in (p for p in group["params"] if p.grad is not None):
                if not self.state[p]:
                    self.state[p] = {
                        "step": torch.zeros(()),
                        "mean": torch.zeros_like(p),
                        "belief": torch.zeros_like(p),
                    }
                self.state[p]["step"] += 1
                by_step.setdefault(float(self.state[p]["step"]), []).append(p)
            for step, parameters in by_step.items():
                gradients = [local(p.grad) for p in parameters if p.grad is not None]
                means, beliefs = ([local(self.state[p][kind]) for p in parameters] for kind in ("mean", "belief"))
                _update([local(p) for p in parameters], gradients, means, beliefs, group=group, step=step)


def _update(
    parameters: list[Tensor],
    gradients: list[Tensor],
    means: list[Tensor],
    beliefs: list[Tensor],
    *,
    group: dict[str, Any],
    step: float,
) -> None:
    (b1, b2), lr, eps, decay = group["betas"], group["lr"], group["eps"], group["weight_decay"]
    if decay and group["decoupled"]:
        torch._foreach_mul_(parameters, 1 - lr * decay)
    elif decay:
        torch._foreach_add_(gradients, parameters, alpha=decay)
    torch._foreach_lerp_(means, gradients, 1 - b1)
    torch._foreach_sub_(gradients, means)
    torch._foreach_mul_(beliefs, b2)
    torch._foreach_addcmul_(beliefs, gradients, gradients, 1 - b2)
    torch._foreach_add_(beliefs, eps)
    roots = torch._foreach_sqrt(beliefs)  # the paper adds eps here again: no root of numbers above eps can tell
    torch._foreach_addcdiv_(parameters, means, roots, value=-lr * (1 - b2**step) ** 0.5 / (1 - b1**step))


def build_optimizer(model: CaptionModel, config: Optimization, lr_factors: dict[str, float]) -> Optimizer:
    """Return the optimiser over parameters of several kinds: decayed or not, of a part with a rate of its own or not.

    `lr_factors` are by the beginnings of parameters' names. Each group keeps the factor of its learning rate under `lr_factor`.
    """
    groups: dict[tuple[float, bool], list[Tensor]] = {}
    for name, parameter in model.named_parameters():
        if parameter.requires_grad:
            factor = next((of_part for part, of_part in lr_factors.items() if name.startswith(part)), 1.0)
            groups.setdefault((factor, parameter.ndim >= 2), []).append(parameter)
    listed = [
        {"params": parameters, "lr_factor": factor, "weight_decay": config.wd if decayed else 0.0}
        for (factor, decayed), parameters in groups.items()
    ]
    betas = (config.b1, config.b2)
    match config.optimizer:
        case "adamw":
            return AdamW(listed, lr=config.lr, betas=betas, fused=True)
        case "adam":
            return Adam(listed, lr=config.lr, betas=betas, fused=True)
        case "sgdm":
            return SGD(listed, lr=config.lr, momentum=0.9, fused=not is_sharded(model))  # DTensor has no fused SGD
        case "adabelief" | "adabeliefw":
            return AdaBelief(listed, lr=config.lr, betas=betas, decoupled=config.optimizer == "adabeliefw")
