"""Packages that the core install leaves out, by the extra of pyproject.toml that brings them."""

from __future__ import annotations

from collections.abc import Iterable
from importlib.util import find_spec

from img2seq.errors import Img2SeqError

MODEL = ("torch", "torchvision", "timm", "safetensors")  # to compute with a run's own model
TRAIN = (*MODEL, "matplotlib", "tensorboardX")
SERVE = ("fastapi", "uvicorn", "python_multipart", "prometheus_client")
FAST = ("onnx",)  # to write graphs; what computes them is in the core
LM = ("transformers", "peft", "gguf")
LOGGERS = ("wandb", "mlflow", "alembic", "sqlalchemy")  # MLflow keeps runs by the last two
PACKAGES = {"train": TRAIN, "serve": SERVE, "fast": FAST, "lm": LM, "loggers": LOGGERS}
_NAMES = {"torch": "PyTorch"}


def require(who: str, packages: Iterable[str], *, instead: str = "") -> None:
    """Raise Img2SeqError unless packages are installed: who needs the first that is not, and the command that installs it.

    Nothing is imported. `instead` says what else can be done, if anything.
    """
    for package in packages:
        if find_spec(package) is None:
            (extra,) = (extra for extra, names in PACKAGES.items() if package in names)
            raise Img2SeqError(f'{who} needs {_NAMES.get(package, package)}: pip install "img2seq[{extra}]"{instead}')
