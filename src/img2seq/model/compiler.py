"""Leave torch's compiler out of a process that compiles nothing: importing it takes a second and 150 MB.

torch's optimisers import it to tell it to keep out of their methods, timm likewise, torchvision to be able to ask it something
later. For that a stand-in is enough. Asked for anything else it makes way for the compiler itself.
"""

from __future__ import annotations

import importlib
import sys
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from types import ModuleType
from typing import Any

import torch

_NAMES = ("torch._dynamo", "torch._dynamo.utils")


@contextmanager
def without_compiler() -> Iterator[None]:
    """Have a stand-in for torch's compiler meanwhile, unless it is there already."""
    if _NAMES[0] in sys.modules:
        yield
        return
    compiler, questions = (_StandIn(name) for name in _NAMES)
    path = [f"{folder}/_dynamo" for folder in torch.__path__]
    vars(compiler).update(disable=_as_it_is, graph_break=_nothing, utils=questions, __path__=path)
    vars(questions).update(is_compile_supported=lambda device_type: questions.real().is_compile_supported(device_type))
    sys.modules.update({module.__name__: module for module in (compiler, questions)})
    try:
        yield
    finally:
        _make_way()


class _StandIn(ModuleType):
    def real(self) -> Any:
        """Return the module this one stands for."""
        _make_way()
        return importlib.import_module(self.__name__)

    def __getattr__(self, name: str) -> Any:
        if name.startswith("__"):  # asked by those who look at all modules; not a use
            raise AttributeError(name)
        return getattr(self.real(), name)


def _make_way() -> None:
    for name in _NAMES:
        if isinstance(sys.modules.get(name), _StandIn):
            del sys.modules[name]


def _as_it_is(function: Callable[..., Any], *_: object, **__: object) -> Callable[..., Any]:
    return function


def _nothing() -> None:
    return
