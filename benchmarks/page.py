"""Write docs/performance.md and its figure from benchmarks/results/*.json: `make docs`; `make bench` does so at its end."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from typing import Any

from benchmarks import kernels as ablation
from benchmarks import summary
from benchmarks.__main__ import BY_NAME_ALONE, NAMES
from benchmarks.decoding import LAYERS, VOCABULARY, WIDTH
from benchmarks.figures import result, show
from benchmarks.photographs import ROOT

LIMIT_KINDS = {"image": "1 caption an image", "five": "5 captions an image", "text": "text only"}


def section(title: str, text: str, columns: Sequence[str], rows: Iterable[Sequence[str]], after: str = "") -> list[str]:
    """Return the lines of a heading, a paragraph, a table and what is to be said of it."""
    lines = [f"## {title}", "", text, "", f"| {' | '.join(columns)} |", "|---" * len(columns) + "|"]
    lines += [f"| {' | '.join(row)} |" for row in rows]
    return [*lines, "", *([after, ""] if after else [])]


def training() -> list[str]:
    """Return the comparison with EIR."""
    found = result("training")
    if not found:
        return []
    runs = found["short"]["image"]["ours"]["captions_per_s"]["runs"]
    return section(
        "Training, against EIR 0.25.0",
        f"`python -m benchmarks training`: the tutorial's configuration on 2,500 photographs, {runs} run(s) a side.",
        ("work", "EIR", "img2seq", "ratio", "goal"),
        [(work, peer, ours, f"{ratio:.1f}x", goal and f"{goal}x") for work, peer, ours, ratio, goal in found["table"]],
        "With five captions an image EIR is held at its speed with one: it refuses several captions an image.",
    )


def tutorial() -> list[str]:
    """Return the whole tutorial on both sides."""
    found = result("tutorial")
    if not found:
        return []
    rows = [
        (
            {"text": "text only", "image": "image+text"}[kind],
            *(f"{sides[side]['whole_s']:.0f}" for side in ("eir", "ours")), f"{sides['eir']['whole_s'] / sides['ours']['whole_s']:.1f}x",
            f"{summary.TUTORIAL_GOAL}x" if kind == "image" else "", *(f"{sides[side]['valid_loss']:.3f}" for side in ("eir", "ours")),
        )
        for kind, sides in found["kinds"].items()
    ]  # fmt: skip
    return section(
        "The tutorial from start to end, against EIR",
        f"`python -m benchmarks tutorial`: {found['epochs']} epochs over all of Flickr8k with one caption an image, once a side; validation losses in nats\n"
        "per token over the same vocabulary. EIR's warm-up is 2,000 steps whatever the length of a run, longer than this one; ours fits it.",
        ("model", "EIR, s", "img2seq, s", "ratio", "goal", "EIR's validation loss", "img2seq's"),
        rows,
    )


def encoder() -> list[str]:
    """Return the ways to run a frozen encoder."""
    found = result("encoder")
    if not found:
        return []
    base = found["images_per_s"]["torch, channels last"]["median"]
    return section(
        "A frozen encoder",
        "`python -m benchmarks encoder`: tf_efficientnet_lite0 at 224 pixels, batches of 32. With `img2seq[fast]` feature caching,\n"
        "`caption` and `evaluate` compute through ONNX Runtime.",
        ("way", "images/s", "ratio"),
        [(name, show(of_way), f"{of_way['median'] / base:.1f}x") for name, of_way in found["images_per_s"].items()],
        f"Largest difference of a feature: {found['largest_difference']:.1e}.",
    )


def images() -> list[str]:
    """Return the first pass over photographs."""
    found = result("images")
    if not found:
        return []
    return section(
        "First pass over photographs",
        "`python -m benchmarks images`: JPEG files to the working size, Pillow's full decode and resize against ours, which lets the\n"
        "decoder skip detail down to twice the working size. The ratio is that of ours with two workers over a loop with Pillow.",
        ("photographs", "size", "Pillow, images/s", "Pillow, two workers", "ours, one thread", "ours, two workers", "ratio", "mean pixel difference, of 255"),
        [
            (
                f"{row['folder']} ({row['images']})", str(row["size"]),
                *(show(row[way], 0) if way in row else "" for way in ("pillow", "pillow_workers", "one_thread", "two_threads")),
                f"{row['ratio']:.1f}x", f"{row['mean_pixel_difference']:.2f}",
            )
            for row in found["rows"]
        ],
        "Decoding the compressed numbers of a JPEG file, which no smaller scale saves, is most of the work at 224 pixels. At 64 pixels a decode down\n"
        "to the working size itself would be faster, and changes pixels more than is said here; it is not done.",
    )  # fmt: skip


def decoding() -> list[str]:
    """Return the comparison with an uncached model and with Hugging Face, and what arithmetic allows."""
    found = result("decoding")
    if not found:
        return []
    speed = max((one["gflop_per_s_alone"] for one in result("limits").get("configurations", {}).values()), default=None)

    def most(row: dict[str, Any]) -> str:
        """Return how many times faster than Hugging Face the linear layers' arithmetic alone would be."""
        if speed is None or "hugging_face" not in row["captions_per_s"]:
            return ""
        flop = 2 * numbers_of_linear_layers() * found["tokens"] * row["beams"]
        return f"{speed * 1e9 / flop / row['captions_per_s']['hugging_face']:.1f}x"

    return section(
        "Decoding",
        "`python -m benchmarks decoding`: captions of 20 tokens from random weights, through ONNX Runtime as a prepared run decodes on a CPU; against our\n"
        "search in torch, the same model without a cache, and Hugging Face `generate` on a decoder of equal size.",
        ("search", "images", "img2seq, captions/s", "over torch", "over uncached", "over Hugging Face", "goal", "most that arithmetic allows"),
        [
            (
                "greedy" if row["beams"] == 1 else "beam 5", str(row["images"]), f"{row['captions_per_s']['ours']:.1f}",
                *(f"{row['ours_over'][way]:.1f}x" if way in row["ours_over"] else "" for way in ("torch", "uncached", "hugging_face")),
                f"{summary.DECODING_GOAL}x", most(row),
            )
            for row in found["rows"]
        ],
        "The last column: the linear layers' operations alone, at the best speed that `limits` finds for a training step's products. With 64 images the\n"
        "rest goes into products that are slower with few rows, attention, and the bookkeeping of a search. For one image it says little: every\n"
        "token reads all weights from memory.",
    )  # fmt: skip


def numbers_of_linear_layers() -> int:
    """Return how many weights the decoder of `benchmarks.decoding` multiplies for a token."""
    return (
        LAYERS * 14 * WIDTH**2 + VOCABULARY * WIDTH
    )  # 3 + 1 of self-attention, 2 of cross-attention, 8 of the feed-forward layers


def hugging_face() -> list[str]:
    """Return the comparison of training steps with Hugging Face."""
    found = result("hugging_face")
    if not found:
        return []
    one, whole = found["rows"][0], found["pass"]
    after = ""
    if whole:
        after = (
            f"Does either learn less in a step? Mean loss of the last {whole['last']} of {whole['steps']} steps of ResNet-18 at {whole['pixels']} pixels over the same\n"
            f"batches, each seen once: Hugging Face {whole['losses']['hugging_face']:.3f}, img2seq {whole['losses']['ours']:.3f} nats per token."
        )
    return section(
        "Training step, against Hugging Face",
        f"`python -m benchmarks hugging_face`: forward, backward, clipping and fused AdamW beside `VisionEncoderDecoderModel` of transformers\n"
        f"{one['transformers']}, the encoder trained, 224 pixels, batches of {found['batch']} Flickr8k captions, decoder of three layers of 256. Hugging Face pads to\n"
        "the longest caption of a batch and encodes an image for every caption.",
        ("encoder", "captions an image", "Hugging Face, captions/s", "img2seq, captions/s", "ratio", "goal"),
        [
            (
                summary.ENCODERS[row["encoder"]], str(row["captions_per_image"]),
                *(show(row["captions_per_s"][side]) for side in ("hugging_face", "ours")),
                f"{row['ratio']:.1f}x", f"{summary.STEP_GOAL}x",
            )
            for row in found["rows"]
        ],
        after,
    )  # fmt: skip


def limits() -> list[str]:
    """Return our share of what torch reaches on the kernels of a step, and where the rest goes."""
    found = result("limits")
    if not found:
        return []
    of_kinds = found["configurations"]
    names = sorted({name for one in of_kinds.values() for name in one["consumers_ms"]})
    names.sort(key=lambda name: -sum(one["consumers_ms"].get(name, 0) for one in of_kinds.values()))
    lines = section(
        "The machine's limit",
        "`python -m benchmarks limits`: every matrix product and convolution of one step of the tutorial, forward and backward, run alone\n"
        "on the same shapes, layouts and threads; the share is their time in that of the whole step. What Winograd's filtering and attention\n"
        "multiply is among the products.",
        ("step", "whole, ms", "products and convolutions alone, ms", "GFLOP/s of these", "share", "goal", "captions/s if that were all"),
        [
            (
                LIMIT_KINDS[kind], f"{one['step_ms']:.1f}", f"{one['alone_ms']:.1f}", f"{one['gflop_per_s_alone']:.0f}",
                f"{one['share']:.0%}", f"{found['goal']:.0%}", f"{1000 * one['captions'] / one['alone_ms']:.0f}",
            )
            for kind, one in of_kinds.items()
        ],
    )  # fmt: skip
    lines += [
        "Where a step's time goes, in milliseconds of a profiled step (the profiler's own time is in it, mostly under Python):",
        "",
        f"| | {' | '.join(LIMIT_KINDS[kind] for kind in of_kinds)} |",
        "|---" * (len(of_kinds) + 1) + "|",
    ]
    for name in names:
        cells = [f"{one['consumers_ms'].get(name, 0):.1f}" for one in of_kinds.values()]
        lines.append(f"| {name} | {' | '.join(cells)} |")
    bounds = [f"{one['optimizer']['bound_ms']:.1f}" for one in of_kinds.values()]
    lines.append(f"| *optimiser at the speed of a copy* | {' | '.join(bounds)} |")
    return [*lines, ""]


def serving() -> list[str]:
    """Return the server beside EIR's, and latency against offered load."""
    found = result("serving")
    lines: list[str] = []
    if "table" in found:
        ours = found["sides"]["ours"]
        crowd = ", ".join(f"{n} of {status}" for status, n in sorted(ours["crowd_status"].items()))
        lines += section(
            "Serving, against EIR",
            "`python -m benchmarks serving`: the tutorial's model on both sides, the same requests (`POST /predict`); ours searches with five beams, EIR\n"
            f"samples. Load of the machine by others before: {found['load_of_the_machine']}.",
            ("work", "EIR", "img2seq", "", "goal"),
            [[cell.replace("|", "") for cell in row] for row in found["table"]],
            f"EIR's captions had {found['sides'].get('eir', ours)['tokens_a_caption']:.0f} tokens, ours {ours['tokens_a_caption']:.0f}: a token is compared, too.\nCaptions of ours equal to `Captioner`'s, alone and among others: {ours['equal_captions']} of {ours['captions']}. Status of 150\n"
            f"requests at once: {crowd}.",
        )
    if rows := found.get("load", []):
        lines += section(
            "Latency against offered load",
            "`python -m benchmarks serving --part load`: requests come at random at a rate, whatever comes back (an open loop), each step for ten\n"
            "seconds, until the queue is full. Latency counts from when a request was due. What is more than the queue holds is refused at once.",
            ("offered /s", "answered /s", "half within, ms", "90 %, ms", "99 %, ms", "refused", "99 % of refusals within, ms", "equal captions"),
            [
                (
                    f"{row['offered_per_s']:.1f}", f"{row['answered_per_s']:.1f}", *(f"{1000 * row[name]:.0f}" for name in ("p50_s", "p90_s", "p99_s")),
                    f"{row['refused']:.0%}", "" if row["refusal_p99_s"] is None else f"{1000 * row['refusal_p99_s']:.0f}",
                    f"{row['equal_captions']} of {row['captions']}",
                )
                for row in rows
            ],
            "![Latency against offered load](images/serving_load.png)",
        )  # fmt: skip
    if soaked := found.get("soak"):
        memory = soaked["memory_mb"]
        lines += [
            f"A soak of {soaked['minutes']:g} minutes at {soaked['rate']:.1f} requests a second, half of the greatest rate that was answered in full: "
            f"{sum(soaked['statuses'].values()):,} requests,",
            f"memory {memory[0]:.0f} MB after the first part, {max(memory):.0f} MB at most, {memory[-1]:.0f} MB at the end; "
            f"wrong captions: {soaked['wrong_captions']}.",
            "",
        ]
    return lines


def growth() -> list[str]:
    """Return cost against size."""
    found = result("growth")
    if not found:
        return []
    names = {"images": "images", "tokens": "tokens of a caption", "vocabulary": "words", "parameters": "parameters"}
    return section(
        "Growth",
        "`python -m benchmarks growth`: cost against size, each size in a process of its own. Dashed: the floating-point operations of a\n"
        "caption at the speed of the smallest size, and a straight line. A bend is how much faster the curve grows than that; 1 is none.\n\n"
        "![Time per caption against size](images/growth_time.png)\n\n![Peak memory against size](images/growth_memory.png)",
        ("size", "from", "to", "ms/caption", "peak GB", "bend of time", "bend of memory"),
        [
            (
                names[kind], f"{rows[0]['size']:,}", f"{rows[-1]['size']:,}",
                f"{1000 * rows[0]['step_s_per_caption']:.2f} to {1000 * rows[-1]['step_s_per_caption']:.2f}",
                f"{rows[0]['peak_bytes'] / 1e9:.2f} to {rows[-1]['peak_bytes'] / 1e9:.2f}",
                f"{found['bends'][kind]['time']:.2f}", f"{found['bends'][kind]['memory']:.2f}",
            )
            for kind, rows in found["kinds"].items()
        ],
        set_up(found["kinds"].get("images", [])),
    )  # fmt: skip


KERNELS = {  # by speed-up: what it is, and what a library has for it
    "winograd": ("3 x 3 convolutions by Winograd's filtering (`model/cpu/winograd.py`)", "oneDNN, which torch calls, multiplies in full: that is the other side"),
    "taps": ("convolutions onto at most 2 x 2 places tap by tap (`model/cpu/convolution.py`)", "oneDNN multiplies with the zeros around the map too: that is the other side"),
    "attention_products": ("attention over short rows as plain products (`model/cpu/attention_products.py`)", "torch's fused kernel, made for long rows: that is the other side"),
    "dropout": ("masks from a fast generator (`model/cpu/dropout.py`)", "torch draws one number after another: that is the other side"),
    "adabelief_blocks": ("AdaBelief over blocks that stay in the cache", "timm's AdaBelief, below"),
    "memory": ("glibc keeps freed memory (`model/cpu/memory.py`)", "other allocators must be loaded before Python; this is one call of the C library"),
    "collector": ("imports with the garbage collector paused (`model/cpu/collector.py`)", "the standard library's `gc`"),
    "decoding_layout": ("linear weights kept by input while decoding (`model/decoder.py`)", "weights packed by oneDNN, below"),
    "onnx_encoder": ("frozen encoders through ONNX Runtime (`model/onnx_encoder.py`)", "it is a library; ours are the export and the check"),
    "onnx_decoder": ("captions through ONNX Runtime (`model/onnx_decoder.py`, `generation/onnx_step.py`)", "it is a library; ours are the graph and the check"),
    "threads": ("threads that decode images and prepare batches: `dataloader_workers`, a setting", "the standard library's pool"),
}  # fmt: skip


def kernels() -> list[str]:
    """Return what each hand-written speed-up brings, and why it stays."""
    found = result("kernels")
    if not found:
        return []
    rows = {(row["speed_up"], row["work"], row["model"]): row for row in found["rows"]}
    lines_of = dict.fromkeys(
        [(name, work) for name, work, _ in ablation.ROWS] + [(name, work) for name, work, _ in rows]
    )

    def cell(name: str, work: str, model: str) -> str:
        row = rows.get((name, work, model))
        if row is None:
            return "-" if any(row["model"] == model for row in found["rows"]) else "not measured"
        text = f"{row['gain']['median']:+.0%} ({row['gain']['fastest']:+.0%})"
        return f"**{text}**" if ablation.pays(row) else text

    measured = {row["speed_up"] == "threads": (row["clock"], row["torch_threads"]) for row in found["rows"]}
    clocks = {
        of_threads: f"{'processor time' if clock == 'cpu' else 'time that passed'} on {n} thread(s) of torch"
        for of_threads, (clock, n) in measured.items()
    }
    lines = section(
        "What was made for speed, and what it brings",
        "`python -m benchmarks kernels`: how much longer a whole training step, a start (from the beginning of the process to its first step) or\n"
        f"a captioned batch takes without it: by medians, and in brackets by the fastest tenth; {clocks[False]}, alternating with and\n"
        f"without on the same batches. It pays (bold) from {found['pays']:.0%} on by both, and stays where it pays on {found['on_models']} models. `nothing` is a step beside itself.\n"
        f"`threads` are two `dataloader_workers` beside none, in {clocks[True]}. `IMG2SEQ_PLAIN=1` runs everything plain.",
        ("speed-up", "work", *(title for title, _, _ in ablation.MODELS.values())),
        [(f"`{name}`", work, *(cell(name, work, model) for model in ablation.MODELS)) for name, work in lines_of],
    )  # fmt: skip
    paid = ablation.verdicts(found["rows"])
    lines += ["| hand-written part | pays on | what else there is | why it stays |", "|---|---|---|---|"]
    for name, (what, other) in KERNELS.items():
        why = KEPT.get(name, "it pays" if len(paid.get(name, [])) >= found["on_models"] else "it was removed")
        lines.append(f"| {what} | {len(paid.get(name, []))} of {len(ablation.MODELS)} models | {other} | {why} |")
    return [*lines, "", *libraries()]


# Of speed-ups that stay for another reason than what they bring to two models.
KEPT: dict[str, str] = dict.fromkeys(
    ("winograd", "attention_products", "dropout"),
    "not by what it brings here, on one processor: without it runs begun before are resumed to other bits",
)


def rewards() -> list[str]:
    """Return how long the reward of sampled captions takes."""
    found = result("rewards")
    if not found:
        return []
    step = next(name.rpartition("_")[2] for name in found if name.startswith("seconds_in_steps_of_"))
    return [
        "## Rewards of sampled captions",
        "",
        f"`python -m benchmarks rewards`: CIDEr-D with the end token of {found['samples']:,} samples against {found['references_per_image']} references each, from text: "
        f"{found['seconds_at_once']:.1f} s at once ({found['seconds_of_the_processor_at_once']:.1f} s of the processor: other programs ran beside it), {found[f'seconds_in_steps_of_{step}']:.1f} s {step} at a time,",
        f"on one thread; {found['largest_difference_from_cider_d']:.0e} from the function that `evaluate` uses. Counting the references takes {found['seconds_preparing_references']:.1f} s, once.",
        "",
    ]


def neighbours() -> list[str]:
    """Return how training and captions fare beside other programs."""
    found = result("neighbour")
    if not found:
        return []
    names = list(found["goals"])
    rows = []
    for row in found["rows"]:
        shares = [f"{row[name]['median'] / row['alone']['median']:.2f}" for name in names]
        rows.append((row["work"], row["way"], *(show(row[name]) for name in ("alone", *names)), *shares))
    goals = " and ".join(f"{goal} beside a {name} program" for name, goal in found["goals"].items())
    return section(
        "Beside other programs",
        "`python -m benchmarks neighbour`: training from cached features as in examples/flickr8k, captions/s, and captions of one picture at\n"
        "a time by the tutorial's model, captions/s; alone, beside a program that computes all the time, and beside such a one of low\n"
        f"priority (nice 19). The last columns are shares of the speed alone; goals: at least {goals}. `ours` is what the command line does:\n"
        "each of torch's threads keeps a core of its own while a step is computed, which any `OMP_`, `GOMP_`, `KMP_` or `MKL_` setting of\n"
        "yours turns off, and few captions are decoded on one thread, which `OMP_NUM_THREADS` turns off.",
        ("work", "threads", "alone", *names, *(f"share, {name}" for name in names)),
        rows,
    )


def libraries() -> list[str]:
    """Return hand-written parts beside libraries."""
    found = result("libraries")
    if not found:
        return []
    of_adabelief, of_linear = found["adabelief"], found["linear"]["ms_of_50"]
    times = ", ".join(f"{name} {ms:.0f}" for name, ms in of_adabelief["ms"].items())
    distances = {f"{value:.0e}" for value in of_adabelief["largest_distance_from_float64"].values()}
    lines = [
        "`python -m benchmarks libraries`, milliseconds of the processor on one thread.",
        f"AdaBelief of the {of_adabelief['parameters'] / 1e6:.0f} million numbers of the tutorial's model: {times}.",
        f"After some steps each is {' or '.join(sorted(distances))} from float64. timm's keeps its step as a Python number and its state under other names, so it would",
        "need a class of ours around it to resume old checkpoints, and it does not know tensors cut over processes.",
    ]
    for name, what in (("dropout", "Dropout of a batch's tokens"),):
        ms = found[name]["ms"]
        lines.append(f"{what}: {', '.join(f'{side} {value:.2f}' for side, value in ms.items())}.")
    for rows, ms in of_linear.items():
        lines.append(
            f"Fifty linear layers of {rows} row(s): {', '.join(f'{way} {value:.1f}' for way, value in ms.items())}."
        )
    return [*lines, ""]


# What stands in the way of a goal, by the beginning of the work's name.
OBSTACLES = {
    "training, image+text, 5 captions": "a step is 12 images and 60 captions: small products, and the optimiser passes over all weights for each (the machine's limit, above)",
    "training, image+text, 1 caption": "the encoder's products are most of a step on either side (the machine's limit, above)",
    "training, text only": "the machine's limit, above",
    "start to first step": "importing torch and timm is most of ours; EIR's start has more of its own to lose when the disk is cold",
    "evaluation of 500": "a forward pass over 500 images and captions: the same arithmetic on either side",
    "10 sampled captions": "the encoder's pass over 10 images, some 20 tokens of six layers of small operations, 41 pictures and files: none of the three is most of it",
    "peak memory": "importing torch with its CUDA libraries takes half a gigabyte on either side; checkpoints beside training keep a copy of weights and optimiser state",
    "the tutorial": "training with one caption an image is nearly all of it; EIR's loss is far from ours when it ends",
    "training step, ViT-small": "the same matrix products on either side, and little else",
    "training step": "the same convolutions on either side",
    "greedy": "decoding, below", "beam": "decoding, below",
    "frozen encoder": "the speed of ONNX Runtime's convolutions on this processor",
    "JPEG files": "the first pass over photographs, below",
}  # fmt: skip


def missed() -> list[str]:
    """Return the goals that are not met, and what stands in the way."""
    rows = [row for row in summary.rows() if row.goal and row.ratio < row.goal]
    reason = {row.work: next((why for name, why in OBSTACLES.items() if row.work.startswith(name)), "") for row in rows}
    return section(
        "Goals that are not met",
        "Of the comparisons above and below, those short of their goal:",
        ("work", "ratio", "goal", "what stands in the way"),
        [(row.work.rpartition(", ")[0], f"{row.ratio:.1f}x", f"{row.goal:g}x", reason[row.work]) for row in rows],
    )


def set_up(rows: Sequence[dict[str, Any]]) -> str:
    """Return a sentence on what comes before the first step."""
    if not rows:
        return ""

    def by_size(name: str) -> str:
        return ", ".join(f"{row[name]:.1f}" for row in rows)

    return (
        f"All that comes before the first step takes {by_size('first_set_up_s')} s with {', '.join(format(row['size'], ',') for row in rows)} images the first\n"
        f"time, when they are decoded, and {by_size('set_up_s')} s after that; planning an epoch and its first batch take {by_size('first_batch_s')} s."
    )


def machines() -> list[str]:
    """Return what the results were measured on: one line where that is one machine."""
    names: dict[str, list[str]] = {}
    for name in (*NAMES, *BY_NAME_ALONE):
        if machine := result(name).get("machine"):
            text = f"{machine['cores']} cores ({machine['processor']}), {machine['memory_gb']} GB, torch {machine['torch']}, no GPU"
            names.setdefault(text, []).append(name)
    if len(names) == 1:
        return [f"Machine: {next(iter(names))}."]
    return [f"Machine of {', '.join(of_machine)}: {text}.\\" for text, of_machine in names.items()] or [
        "No results are kept here."
    ]


def page() -> str:
    """Return the page."""
    lines = [
        "# Performance",
        "",
        "This page is written by `make docs` from `benchmarks/results/`, which `make bench` fills. Both sides of a comparison run in",
        "turn on the same machine, files, split and number of threads; EIR is installed from PyPI into an environment of its own.",
        *machines(),
        "",
        "![How many times better than the peer, and the goals](images/benchmarks.png)",
        "",
        *training(),
        *tutorial(),
        *hugging_face(),
        *limits(),
        *(missed() if summary.rows() else []),
        *encoder(),
        *images(),
        *decoding(),
        *serving(),
        *growth(),
        *kernels(),
        *rewards(),
        *neighbours(),
        "## What made training fast besides",
        "",
        "- An image is decoded once, ever, and encoded once for all of its captions in a batch; no padded position enters a linear layer.",
        "- The threads that prepare batches never enter a parallel operation of torch: that would give each a team of OpenMP threads,",
        "  and with more teams than cores the training thread's own team sleeps after every operation.",
        "- Short captions share rows of the attention's table (`model/packing.py`).",
        "",
        "Tried and dropped, each measured slower or no faster here: the decoder's batch cut over two Python threads; patches laid out for small",
        "maps, and for the first convolution; OpenVINO (slow to convert a model); folding batch norms by tracing (timm's encoders branch in",
        "Python); large pages for the heap; decoding by weights cut into panels, and by a step without modules; smaller first weights, as GPT-2",
        "has them (a lower first loss, a higher one later). Not tried: `torch.compile` by default, a loss in chunks of the vocabulary.",
        "",
    ]
    return "\n".join(lines)


def write() -> None:
    """Write the page and its figure of all results."""
    summary.draw(summary.rows())
    (ROOT / "docs" / "performance.md").write_text(page(), encoding="utf-8")


if __name__ == "__main__":
    write()
