"""What benchmarks compute from their measurements, and the page that is written from kept results."""

from __future__ import annotations

import csv
import json
import shlex
from pathlib import Path

import pytest
import torch
import torch.nn.functional as F
import yaml
from benchmarks import __main__, figures, flickr8k, growth, kernels, other_pictures, page, summary, transfer
from benchmarks.figures import result
from benchmarks.limits import KernelRecorder, seconds_alone

from conftest import ROOT, needs_flickr8k
from img2seq.config.causal_lm import CausalLM
from img2seq.config.load import load_config
from img2seq.config.outputs import ReadOptions
from img2seq.demo.dataset import write_dataset
from img2seq.model.cpu import switch, winograd
from img2seq.start.init import init


def test_the_arithmetic_of_a_matrix_product_and_its_gradients_is_counted() -> None:
    x, weight = torch.randn(5, 7, requires_grad=True), torch.randn(11, 7, requires_grad=True)
    with KernelRecorder() as forward:
        y = F.linear(x, weight)
    assert forward.flops == 2 * 5 * 7 * 11
    with KernelRecorder() as backward:
        y.sum().backward()
    assert backward.flops == 2 * forward.flops


def test_the_arithmetic_of_winograd_filtering_and_its_gradients_is_counted() -> None:
    B, C, N, tiles, a = 4, 128, 128, 3, 6  # a map of 12 x 12: 3 x 3 tiles of 4 x 4 outputs
    x, weight = torch.randn(B, C, 12, 12, requires_grad=True), torch.randn(N, C, 3, 3, requires_grad=True)
    with KernelRecorder() as forward:
        y = winograd.convolve(x, weight)
    products = 2 * a * a * tiles * tiles * B * C * N
    assert products < forward.flops < 2 * products  # the rest are transforms
    with KernelRecorder() as backward:
        y.sum().backward()
    assert 2 * products < backward.flops < 3 * products


def test_the_arithmetic_of_a_convolution_and_its_gradients_is_counted() -> None:
    x, weight = torch.randn(2, 3, 8, 8, requires_grad=True), torch.randn(4, 3, 3, 3, requires_grad=True)
    with KernelRecorder() as recorder:
        F.conv2d(x, weight, padding=1).sum().backward()
    assert recorder.flops == 3 * 2 * (2 * 4 * 8 * 8) * (3 * 3 * 3)


def test_kernels_are_run_again_on_the_layout_they_had() -> None:
    a, b = torch.randn(6, 4).t(), torch.randn(6, 3)
    with KernelRecorder() as recorder:
        a @ b
        a @ b
        a.contiguous() @ b
    kernels = list(recorder.counts.values())
    assert [count for _, count in kernels] == [2, 1]
    assert [kernel.arguments[0].strides for kernel, _ in kernels] == [(1, 4), (6, 1)]
    result = kernels[0][0].call()()
    assert isinstance(result, torch.Tensor)
    assert result.shape == (4, 3)
    assert seconds_alone([(kernel.call(), count) for kernel, count in kernels]) > 0


def test_attention_is_noted_apart_from_products_and_convolutions() -> None:
    q = torch.randn(2, 2, 4, 8, requires_grad=True)
    with KernelRecorder() as recorder:
        F.scaled_dot_product_attention(q, q, q, is_causal=True).sum().backward()
    kernels = [kernel for kernel, _ in recorder.counts.values()]
    assert len(kernels) == 2  # forward and backward
    assert all(kernel.is_attention for kernel in kernels)
    assert recorder.flops == 0
    products = 2 * (2 * 2 * 4) * 4 * 8 / 2  # half of the pairs under the causal mask
    assert recorder.attention_flops == (2 + 5) * products
    for kernel in kernels:
        kernel.call()()


def test_a_curve_bends_only_where_it_grows_faster_than_its_arithmetic() -> None:
    assert growth.time_bend([1, 2, 4], [1.0, 1.5, 3.0]) == pytest.approx(1.0)
    assert growth.time_bend([1, 2, 4], [1.0, 2.0, 6.0]) == pytest.approx(1.5)
    assert growth.memory_bend([1, 2, 4], [1.0, 2.0, 4.0]) == pytest.approx(1.0)
    assert growth.memory_bend([1, 2, 4], [1.0, 2.0, 8.0]) == pytest.approx(2.0)
    assert growth.memory_bend([1, 2, 4], [3.0, 2.0, 2.0]) == pytest.approx(1.0)


def test_the_performance_page_is_that_of_the_kept_results() -> None:
    assert (ROOT / "docs/performance.md").read_text(encoding="utf-8") == page.page(), "run `make docs`"


def test_a_page_can_be_written_whatever_results_are_there(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    monkeypatch.setattr("benchmarks.figures.RESULTS", tmp_path)
    assert page.page().startswith("# Performance")
    assert summary.rows() == []


def test_the_figure_and_the_table_show_every_comparison(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    found = summary.rows()
    assert {row.peer for row in found} == {"EIR", "Hugging Face", "torch", "Pillow"}
    assert len(summary.table(found).splitlines()) == 1 + len(found)
    monkeypatch.setattr(summary, "FIGURE", tmp_path / "benchmarks")
    summary.draw(found)
    assert (tmp_path / "benchmarks.png").stat().st_size > 10_000


def test_a_speed_up_pays_where_medians_and_the_fastest_both_say_so() -> None:
    def row(without: list[float]) -> dict[str, object]:
        return kernels.row_of("taps", "step", "five", ([(1.0, 1.0)] * 10, [(t, t) for t in without]))

    assert row([1.05] * 10)["gain"] == pytest.approx({"median": 0.05, "fastest": 0.05, "cpu": 0.05})
    assert kernels.pays(row([1.05] * 10))
    assert not kernels.pays(row([1.0, *[1.05] * 9]))
    assert not kernels.pays(row([*[1.02] * 9, 9.0]))
    assert kernels.verdicts([row([1.05] * 10)])["taps"] == ["five"]


def test_every_switched_speed_up_is_measured() -> None:
    assert set(switch.NAMES) <= set(kernels.SPEED_UPS)


def test_the_commands_of_the_rows_of_flickr8k_train_what_the_rows_were_trained_as() -> None:
    for row in flickr8k._rows():
        (train, evaluate) = (shlex.split(part) for part in flickr8k.command(row.stem).split(" && "))
        assert train[:2] == ["img2seq", "train"]
        assert evaluate[:2] == ["img2seq", "evaluate"]
        config = load_config(ROOT / train[2], *(override.removeprefix("--") for override in train[3:]))
        then = flickr8k.of_consequence(result(row.stem)["runs"][0]["config"])
        now = flickr8k.flat_config(config)
        assert {name: now.get(name) for name in then} == then


def test_the_experiments_of_few_photographs_are_valid(tmp_path: Path) -> None:
    write_dataset(tmp_path, n_train=20, n_valid=4, seed=0)
    init(str(tmp_path / "images"), None, tmp_path / "few.yaml", options=ReadOptions())
    for way in transfer.WAYS:
        sections = yaml.safe_load((tmp_path / "few.yaml").read_text())
        transfer.change(sections, way, n_captions=100)
        (tmp_path / "way.yaml").write_text(yaml.safe_dump(sections))
        config = load_config(tmp_path / "way.yaml")
        assert isinstance(config.output.model, CausalLM) == (way in transfer.LANGUAGE_MODELS)


def test_no_way_of_few_photographs_trains_on_what_is_captioned_nor_on_what_the_captioner_saw() -> None:
    split_of = {
        f"{split}{n}": split for split, count in (("train", 6000), ("dev", 1000), ("none", 90)) for n in range(count)
    }
    drawn = transfer.draw_photographs(split_of)
    assert len(drawn.valid) == transfer.N_VALID
    assert set(drawn.valid) <= set(drawn.dev)
    assert len(drawn.unseen) == 7090 - 1000 - transfer.N_CAPTIONER
    assert not set(drawn.unseen) & {*drawn.seen, *drawn.dev}
    assert not {*drawn.others, *drawn.seen} & set(drawn.dev)


@needs_flickr8k
def test_a_photograph_has_as_many_of_its_captions_as_asked_for(tmp_path: Path) -> None:
    images = sorted(transfer.splits())[:50]
    written = {}
    for each in (1, transfer.N_CAPTIONS_EACH):
        transfer.write_captions(tmp_path / "captions.csv", images, each=each)
        with (tmp_path / "captions.csv").open(encoding="utf-8", newline="") as file:
            written[each] = [(row["ID"], row["Sequence"]) for row in csv.DictReader(file)]
        assert [image for image, _ in written[each]] == [image for image in images for _ in range(each)]
    assert set(written[1]) < set(written[transfer.N_CAPTIONS_EACH])
    assert set(written[1]) != set(written[transfer.N_CAPTIONS_EACH][:: transfer.N_CAPTIONS_EACH])  # not the first ones


@needs_flickr8k
@pytest.mark.parametrize("scores_as_before", [True, False])
def test_a_point_that_another_process_measures_while_the_captioner_is_trained_is_kept(
    scores_as_before: bool, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(figures, "RESULTS", tmp_path)
    monkeypatch.setenv("OMP_NUM_THREADS", "1")
    of_captioner, of_other, of_this = (
        {"photographs": n, "way": way, "seed": 0}
        for n, way in ((50, transfer.CAPTIONER), (50, transfer.ENCODER), (100, transfer.CAPTIONER))
    )
    before = {"untouched": {"cider_d": 0.5}, "points": [of_captioner]}
    transfer.keep(before)
    monkeypatch.setattr(
        transfer, "train_captioner", lambda *_: transfer.keep(before | {"points": [of_captioner, of_other]})
    )
    monkeypatch.setattr(transfer, "scores", lambda *_: {"cider_d": 0.5 if scores_as_before else 0.6})
    monkeypatch.setattr(transfer, "measure_point", lambda *_: of_this)
    transfer.measure([(100, transfer.CAPTIONER, 0)], at_once=1)
    assert result("transfer")["points"] == [of_other, *([of_captioner] if scores_as_before else []), of_this]


def test_every_benchmark_exists() -> None:
    for name in (*__main__.NAMES, *__main__.BY_NAME_ALONE):
        assert (ROOT / "benchmarks" / f"{name}.py").is_file()


@pytest.mark.skipif(not other_pictures.COCO.is_dir(), reason="needs ../shared/data/coco_mini")
def test_each_of_the_other_pictures_is_captioned_once(tmp_path: Path) -> None:
    parts = other_pictures.parts_of_photographs()
    assert sorted(name for part in parts for name in part) == sorted(
        p.stem for p in other_pictures.PHOTOGRAPHS.iterdir()
    )
    other_pictures.write_captions(tmp_path / "part.json", parts[0])
    written = json.loads((tmp_path / "part.json").read_text())
    assert sorted(Path(image["file_name"]).stem for image in written["images"]) == sorted(parts[0])
    assert {caption["image_id"] for caption in written["annotations"]} == {image["id"] for image in written["images"]}
