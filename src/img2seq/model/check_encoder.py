"""Look at an encoder before images are read, or are trained on: is there one, and does it see the whole of a picture."""

from __future__ import annotations

import copy

import torch

from img2seq.errors import ModelError, did_you_mean
from img2seq.model.encoder import ImageEncoder, timm_library


def check_name(name: str) -> None:
    """Raise ModelError, with the nearest name, unless timm has an encoder of this name, and weights of its tag."""
    timm = timm_library()
    known = timm.list_models()
    if name.partition(".")[0] not in known:
        hint = did_you_mean(name, known) or " `timm.list_models()` prints all names."
        raise ModelError(f"model_type: timm has no encoder named {name!r}.{hint}")
    if "." in name and name not in (tagged := timm.models.get_arch_pretrained_cfgs(name)):
        raise ModelError(f"model_type: timm has no weights named {name!r}.{did_you_mean(name, tagged)}")


def unseen_border(encoder: ImageEncoder) -> tuple[int, int]:
    """Return how many of the last rows and of the last columns no feature depends on.

    Encoders that cut images into patches leave out what does not fill one: of 60 pixels, patches of 16 see 48.
    """
    noise = torch.randn(1, encoder.n_channels, *encoder.size, generator=torch.Generator().manual_seed(0))
    x = noise.to(encoder.scale.device).requires_grad_()
    backbone = copy.deepcopy(encoder.backbone).eval()
    for weights in backbone.parameters():
        weights.data[weights == 0] = 0.1  # new residual branches are multiplied by zero, which training changes
    with torch.enable_grad():
        features = backbone.forward_features(x)  # type: ignore[operator]  # every timm model has it
        (gradient,) = torch.autograd.grad(features.float().square().sum(), x)
    seen = gradient[0].abs().sum(0) > 0
    rows, columns = seen.any(1).nonzero(), seen.any(0).nonzero()
    return encoder.size[0] - 1 - int(rows.max()), encoder.size[1] - 1 - int(columns.max())
