"""Dropout (Srivastava 2014) whose random numbers are cheap on a CPU."""

from __future__ import annotations

import numpy as np
import torch
import torch.nn.functional as F
from torch import Tensor, nn

from img2seq.model.cpu.switch import is_on

_LEVELS = 1 << 16


class Dropout(nn.Module):
    """Set each number to zero with probability p (below 1) while training, and scale the others so that the mean stays.

    On a CPU torch draws one random number after another, which takes long. Here a fast generator, seeded by
    torch's own (so that `torch.manual_seed` decides the mask), gives 16 bits for each number; p is kept to 1/65536, and the
    scale follows what is kept. Elsewhere, and under torch.compile, this is torch's dropout.
    """

    def __init__(self, p: float):
        super().__init__()
        self.p = p

    def forward(self, x: Tensor) -> Tensor:
        """Return a tensor of the shape of x."""
        if not self.training or self.p == 0:
            return x
        if x.device.type != "cpu" or torch.compiler.is_compiling() or not is_on("dropout"):
            return F.dropout(x, self.p)
        dropped = min(round(self.p * _LEVELS), _LEVELS - 1)
        seed = int(torch.randint(1 << 62, ()))
        words = np.random.Generator(np.random.SFC64(seed)).integers(1 << 64, size=-(-x.numel() // 4), dtype=np.uint64)
        bits = torch.from_numpy(words.view(np.int16))[: x.numel()].view(x.shape)
        mask = (bits >= dropped - _LEVELS // 2).to(x.dtype)
        return x * mask.mul_(_LEVELS / (_LEVELS - dropped))


def replace_dropout(model: nn.Module) -> None:
    """Let every dropout of this model, changed in place, be one of ours."""
    for module in list(model.modules()):
        for name, child in module.named_children():
            if type(child) is nn.Dropout:
                setattr(module, name, Dropout(child.p))
