"""The training loss where several processes hold one model: each whole (DDP), or each a part of it (FSDP2).

Both sum gradients over processes while the backward pass still runs, and divide by their number; the loop multiplies by it,
so that what is minimised is the mean over the tokens of all processes.

Statistics of batch normalisation are those of a process's own images; the running averages, which are what a checkpoint
holds, are made equal after every step (`batch_statistics`).
"""

from __future__ import annotations

import contextlib
import inspect
import warnings
from collections.abc import Callable, Iterator
from typing import TYPE_CHECKING, Any, TypeGuard

import torch
from torch import Tensor, nn
from torch.nn.modules.batchnorm import _BatchNorm
from torch.nn.parallel import DistributedDataParallel

from img2seq.data.batch import Batch
from img2seq.model.caption_model import CaptionModel
from img2seq.model.decoder import Block
from img2seq.model.packing import PackedBatch, pack
from img2seq.model.teacher_forcing import token_losses
from img2seq.training.distributed import World
from img2seq.training.objective import Objective

if TYPE_CHECKING:  # importing them takes a second: only where tensors become shards
    from torch.distributed.fsdp import FSDPModule
    from torch.distributed.tensor import DTensor

_NAMES = inspect.signature(DistributedDataParallel).parameters
_SYNC_BUFFERS = "forward_sync_buffers" if "forward_sync_buffers" in _NAMES else "broadcast_buffers"  # since torch 2.13


class TrainingLoss(nn.Module):
    """An objective's loss of a batch as a module, which is what DDP and FSDP can wrap."""

    def __init__(self, model: CaptionModel, objective: Objective, *, compiled: bool):
        super().__init__()
        self.model = model
        self.loss_sum = torch.compile(objective.loss_sum, dynamic=True) if compiled else objective.loss_sum

    def forward(self, batch: PackedBatch) -> Tensor:
        """Return the loss in nats, summed over this process's target tokens."""
        loss: Tensor = self.loss_sum(self.model, batch)
        return loss


def parallel_loss(
    model: CaptionModel,
    objective: Objective,
    world: World,
    strategy: str,
    *,
    compiled: bool,
    example: Callable[[], Batch],
) -> nn.Module:
    """Return the loss whose gradients are the same in all processes; with `fsdp` the model's tensors become shards."""
    loss = TrainingLoss(model, objective, compiled=compiled)
    if world.size == 1:
        return loss
    device = model.device
    if strategy == "fsdp":
        from torch.distributed.device_mesh import init_device_mesh
        from torch.distributed.fsdp import fully_shard

        warnings.filterwarnings("ignore", "FSDP2-wrapped module .* returned a view")  # nothing here is changed in place
        mesh = init_device_mesh(device.type, (world.size,))
        model.to(memory_format=torch.contiguous_format)  # shards of weights kept channels last are not supported
        for unit in _units(model):
            fully_shard(unit, mesh=mesh)
        fully_shard(loss, mesh=mesh)
        return loss
    options: dict[str, Any] = {_SYNC_BUFFERS: False}
    return DistributedDataParallel(
        loss,
        device_ids=[device] if device.type == "cuda" else None,
        **options,
        gradient_as_bucket_view=True,
        find_unused_parameters=_has_idle_parameters(model, example()),
    )


def _units(model: CaptionModel) -> Iterator[nn.Module]:
    """Yield the modules whose weights are gathered together, inner ones first: blocks, encoders, and what is called apart."""
    for encoder in map(model.encoder, model.encoders):
        for stage in encoder.backbone.children():
            if isinstance(stage, nn.Sequential):
                yield from (block for block in stage if any(True for _ in block.parameters()))
        yield encoder
    for block in model.own_decoder.blocks:
        assert isinstance(block, Block)
        if block.has_memory:
            yield block.memory_kv  # the memory's keys and values are computed before the blocks
        yield block


def _has_idle_parameters(model: CaptionModel, example: Batch) -> bool:
    """Return whether there are parameters that the loss does not depend on, such as those of a head left out.

    DDP has to be told, or it waits for their gradients.
    """
    trained = [p for p in model.parameters() if p.requires_grad]
    model.eval()  # batch statistics stay as they are
    loss = token_losses(model, pack(example, model.device)).sum()
    gradients = torch.autograd.grad(loss, trained, allow_unused=True)
    model.train()
    return any(gradient is None for gradient in gradients)


@contextlib.contextmanager
def gradients_kept_here(loss: nn.Module) -> Iterator[None]:
    """Gather gradients in each process and send none: for all batches of a step but the last."""
    if isinstance(loss, DistributedDataParallel):
        with loss.no_sync():
            yield
    elif _is_sharded_module(loss):
        loss.set_requires_gradient_sync(False)
        try:
            yield
        finally:
            loss.set_requires_gradient_sync(True)
    else:
        yield


@torch.no_grad()
def needs_two_images(model: CaptionModel) -> bool:
    """Return whether a trained encoder normalises a single value per channel of one image, which has no variance to train on."""
    found = []

    def note(layer: nn.Module, inputs: tuple[Tensor, ...]) -> None:
        found.append(inputs[0].numel() == inputs[0].shape[1])

    for encoder in (e for e in map(model.encoder, model.encoders) if not (e.frozen or e.keeps_statistics)):
        layers = [layer for layer in encoder.modules() if isinstance(layer, _BatchNorm)]
        hooks = [layer.register_forward_pre_hook(note) for layer in layers]
        blank = torch.zeros(1, encoder.n_channels, *encoder.size, dtype=torch.uint8, device=encoder.scale.device)
        encoder.eval()(blank)  # batch statistics stay as they are
        encoder.train()
        for hook in hooks:
            hook.remove()
    return any(found)


def batch_statistics(model: nn.Module) -> list[Tensor]:
    """Return the running means and variances that training changes."""
    layers = [layer for layer in model.modules() if isinstance(layer, _BatchNorm) and layer.training]
    return [b for layer in layers for b in (layer.running_mean, layer.running_var) if b is not None]


def _is_sharded_module(module: nn.Module) -> TypeGuard[FSDPModule]:
    return hasattr(module, "set_requires_gradient_sync")


def _is_shard(tensor: Tensor) -> TypeGuard[DTensor]:
    return hasattr(tensor, "full_tensor")


def is_sharded(model: nn.Module) -> bool:
    """Return whether this process holds but a part of each tensor."""
    return any(_is_shard(p) for p in model.parameters())


def whole(tensor: Tensor) -> Tensor:
    """Return a tensor as it is, or a sharded one put together again: all processes must ask for it."""
    return tensor.full_tensor() if _is_shard(tensor) else tensor


def local(tensor: Tensor) -> Tensor:
    """Return the part of a sharded tensor that lies here, in the same memory, or the tensor itself."""
    return tensor.to_local() if _is_shard(tensor) else tensor


def laid_out_as(tensor: Tensor, parameter: Tensor) -> Tensor:
    """Return a whole tensor with the device, strides and shards of a parameter, where they have one shape.

    Convolution weights are kept channels last, files are not, and the fused optimisers go through the memory of a
    parameter and its state side by side without looking at strides.
    """
    if tensor.shape != parameter.shape:
        return tensor
    if _is_shard(parameter):
        from torch.distributed.tensor import distribute_tensor

        tensor = tensor.to(parameter.device)
        return distribute_tensor(tensor, parameter.device_mesh, parameter.placements, src_data_rank=None)
    return torch.empty_like(parameter, dtype=tensor.dtype).copy_(tensor).detach()
