"""What a run was made with: versions, machine, threads, command line."""

from __future__ import annotations

import os
import platform
import sys
import time
from importlib.metadata import PackageNotFoundError, version
from typing import Any

import torch
import torch.distributed as dist

PACKAGES = ("img2seq", "torch", "torchvision", "timm", "numpy", "pillow", "safetensors", "tokenizers", "pydantic")


def environment() -> dict[str, Any]:
    """Return the environment as plain data. Nothing in it names the user or the network."""
    versions = {}
    for name in PACKAGES:
        try:
            versions[name] = version(name)
        except PackageNotFoundError:
            versions[name] = "unknown"
    return {
        "python": platform.python_version(),
        "packages": versions,
        "system": f"{platform.system()} {platform.machine()}",
        "cpus": os.cpu_count(),
        "processes": dist.get_world_size() if dist.is_initialized() else 1,
        "torch_threads": torch.get_num_threads(),
        "devices": [torch.cuda.get_device_name(i) for i in range(torch.cuda.device_count())],
        "command": ["img2seq", *sys.argv[1:]],
        "time": time.strftime("%Y-%m-%dT%H:%M:%S%z"),
    }
