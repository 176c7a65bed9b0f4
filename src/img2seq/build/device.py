"""Where to compute."""

from __future__ import annotations

import torch

from img2seq.errors import ConfigError


def choose_device(name: str) -> torch.device:
    """Return the device a configuration names. Raises ConfigError if this machine does not have it."""
    if name == "auto":
        name = "cuda" if torch.cuda.is_available() else "mps" if torch.backends.mps.is_available() else "cpu"
    device = torch.device(name)
    present = {"cpu": True, "cuda": torch.cuda.is_available(), "mps": torch.backends.mps.is_available()}
    if not present[device.type] or (device.index or 0) >= max(1, torch.cuda.device_count()):
        raise ConfigError(f"basic_experiment.device: {name} is not present on this machine; cpu and auto always work")
    return device
