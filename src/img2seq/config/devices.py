"""Names of devices: of the schema, and of the command line, which reads them without it."""

from __future__ import annotations

from img2seq.errors import did_you_mean

DEVICES = ["cpu", "cuda", "cuda:N", "mps", "auto"]
DEVICE_PATTERN = r"^(auto|cpu|mps|cuda(:[0-9]{1,2})?)$"


def nearest_device(text: str) -> str:
    """Return " Did you mean 'cuda'?" for a name that is none of a device, or "" where none is near."""
    return " Did you mean 'cuda'?" if text.lower().startswith("gpu") else did_you_mean(text, DEVICES)
