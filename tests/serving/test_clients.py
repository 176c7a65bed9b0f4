"""Clients that others wrote, against a running server: each gets the captions of the run."""

from __future__ import annotations

import asyncio
import base64
import io
import json
import math
import subprocess
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
from huggingface_hub import InferenceClient
from openai import NotFoundError, OpenAI
from PIL import Image

from conftest import SHARED
from img2seq import Captioner
from servers import Served, serving


@pytest.fixture(scope="module")
def server(tmp_path_factory: pytest.TempPathFactory, run: Path) -> Iterator[Served]:
    with serving(tmp_path_factory.mktemp("serving"), run) as served:
        yield served


@pytest.fixture(scope="module")
def pictures(images: Path) -> list[Path]:
    return sorted(images.glob("*.png"))[:6]


@pytest.fixture(scope="module")
def captioner(run: Path) -> Captioner:
    return Captioner.load(run, device="cpu")


def data_url(path: Path) -> str:
    return f"data:image/png;base64,{base64.b64encode(path.read_bytes()).decode()}"


def message(path: Path, text: str = "What is this?") -> list[Any]:
    content = [{"type": "text", "text": text}, {"type": "image_url", "image_url": {"url": data_url(path)}}]
    return [{"role": "user", "content": content}]


def curl(server: Served, path: str, *options: str) -> Any:
    done = subprocess.run(
        ["curl", "--silent", "--show-error", "--noproxy", "*", *options, f"{server.url}{path}"],
        check=True,
        capture_output=True,
        timeout=60,
    )
    return json.loads(done.stdout)


def test_curl_with_one_picture(server: Served, pictures: list[Path], captioner: Captioner) -> None:
    answer = curl(server, "/caption", "--form", f"image=@{pictures[0]}")
    expected = captioner.caption(pictures[0])
    (found,) = answer["captions"]
    assert (answer["model"], found["text"], found["alternatives"]) == (captioner.trained.run.name, expected.text, [])
    assert found["tokens"] == list(expected.tokens)
    assert math.isclose(found["log_probability"], expected.log_probability, abs_tol=1e-4)
    assert len(found["token_log_probabilities"]) == len(found["tokens"])


def test_curl_with_three_pictures_and_settings(server: Served, pictures: list[Path], captioner: Captioner) -> None:
    forms = [part for path in pictures[:3] for part in ("--form", f"image=@{path}")]
    answer = curl(server, "/caption?beam_size=4", *forms, "--form", "n_best=2")
    expected = captioner.caption(pictures[:3], beam_size=4, n_best=2)
    assert [caption["text"] for caption in answer["captions"]] == [caption.text for caption in expected]
    assert [[other["text"] for other in caption["alternatives"]] for caption in answer["captions"]] == [
        [other.text for other in caption.alternatives] for caption in expected
    ]


def test_curl_with_the_bytes_of_a_picture(server: Served, pictures: list[Path], captioner: Captioner) -> None:
    body = ("--data-binary", f"@{pictures[1]}", "--header", "Content-Type: image/png")
    answer = curl(server, "/caption?method=sample&n_best=3&seed=7", *body)
    expected = captioner.caption(pictures[1], method="sample", n_best=3, seed=7)
    (found,) = answer["captions"]
    texts = [found["text"], *(other["text"] for other in found["alternatives"])]
    assert texts == [expected.text, *(other.text for other in expected.alternatives)]
    assert answer == curl(server, "/caption?method=sample&n_best=3&seed=7", *body)


def test_hugging_faces_client(server: Served, pictures: list[Path], captioner: Captioner, run: Path) -> None:
    client = InferenceClient(model=f"{server.url}/models/{run.name}", token="none")
    for path in pictures[:2]:
        assert client.image_to_text(path).generated_text == captioner.caption(path).text


def test_hugging_faces_parameters(server: Served, pictures: list[Path], captioner: Captioner, run: Path) -> None:
    body = {
        "inputs": base64.b64encode(pictures[0].read_bytes()).decode(),
        "parameters": {"max_new_tokens": 4, "generation_parameters": {"num_beams": 2, "early_stopping": True}},
    }
    expected = captioner.caption(pictures[0], max_length=4, beam_size=2).text
    assert server.post(f"/models/{run.name}", json=body).json() == [{"generated_text": expected}]
    assert server.post(f"/models/{run.name}/object", json=body).json() == {"generated_text": expected}
    body["parameters"] = {"num_beems": 2}
    refused = server.post(f"/models/{run.name}", json=body)
    assert refused.status_code == 422
    assert "num_beams" in refused.json()["error"]


def test_openais_client(server: Served, pictures: list[Path], captioner: Captioner, run: Path) -> None:
    client = OpenAI(base_url=f"{server.url}/v1", api_key="none")
    assert [model.id for model in client.models.list()] == [run.name]
    expected = captioner.caption(pictures[0], n_best=3)
    texts = [expected.text, *(other.text for other in expected.alternatives)]

    plain = client.chat.completions.create(model=run.name, messages=message(pictures[0]))
    assert [choice.message.content for choice in plain.choices] == texts[:1]

    several = client.chat.completions.create(model=run.name, messages=message(pictures[0]), n=3, logprobs=True)
    assert [choice.message.content for choice in several.choices] == texts
    logprobs = several.choices[0].logprobs
    assert logprobs is not None
    assert logprobs.content is not None
    assert [token.token for token in logprobs.content] == list(expected.tokens)

    events = list(client.chat.completions.create(model=run.name, messages=message(pictures[0]), stream=True))
    assert "".join(event.choices[0].delta.content or "" for event in events) == expected.text
    assert events[-1].choices[0].finish_reason in ("stop", "length")

    sampled = client.chat.completions.create(model=run.name, messages=message(pictures[0]), temperature=1.5, seed=3)
    assert (
        sampled.choices[0].message.content
        == captioner.caption(pictures[0], method="sample", temperature=1.5, seed=3).text
    )

    begun = client.chat.completions.create(
        model=run.name, messages=message(pictures[0], "a"), max_tokens=3, extra_body={"text_is_beginning": True}
    )
    assert begun.choices[0].message.content == captioner.caption(pictures[0], beginning="a", max_length=3).text
    assert begun.choices[0].finish_reason == "length"

    with pytest.raises(NotFoundError, match="model"):
        client.chat.completions.create(model="gpt-4o", messages=message(pictures[0]))


def test_the_stream_is_what_openai_sends(server: Served, pictures: list[Path], run: Path) -> None:
    body = {"messages": message(pictures[0]), "stream": True, "stream_options": {"include_usage": True}}
    answer = server.post("/v1/chat/completions", json=body)
    assert answer.headers["content-type"].startswith("text/event-stream")
    events = answer.text.split("\n\n")
    assert events[-2:] == ["data: [DONE]", ""]
    assert json.loads(events[-3].removeprefix("data: "))["usage"]["completion_tokens"] > 0


def test_the_requests_of_the_tutorial(server: Served, pictures: list[Path], captioner: Captioner) -> None:
    """The file's own pictures are not at hand; its form is, with the run's names for picture and caption."""
    if not SHARED.exists():
        pytest.skip("../shared is absent")
    (case,) = json.loads((SHARED / "tutorial/predictions.json").read_text())
    begun = ["", "", captioner.trained.tokenizer.tokens[-1]]
    assert [set(item) for item in case["request"]] == [{"image_captioning", "captions"}] * 3
    request = [
        {captioner.input_name: base64.b64encode(path.read_bytes()).decode(), "captions": beginning}
        for path, beginning in zip(pictures, begun, strict=False)
    ]
    answer = server.post("/predict", json=request).json()
    assert answer.keys() == case["response"].keys()
    expected = [captioner.caption(path, beginning=text).text for path, text in zip(pictures, begun, strict=False)]
    assert answer["result"] == [{"captions": text} for text in expected]
    assert expected[2].startswith(begun[2])


def test_answers_do_not_depend_on_neighbours(server: Served, pictures: list[Path], captioner: Captioner) -> None:
    import httpx2

    async def all_at_once() -> list[str]:
        async with httpx2.AsyncClient(trust_env=False, timeout=60) as client:
            answers = await asyncio.gather(
                *(
                    client.post(f"{server.url}/caption?beam_size={2 + i % 2}", files={"image": path.read_bytes()})
                    for i, path in enumerate(pictures * 5)
                )
            )
        return [answer.json()["captions"][0]["text"] for answer in answers]

    expected = [captioner.caption(path, beam_size=2 + i % 2).text for i, path in enumerate(pictures * 5)]
    assert asyncio.run(all_at_once()) == expected
    sizes = [json.loads(line)["batch"] for line in server.log.read_text().splitlines() if '"batch"' in line]
    assert max(sizes) > 1  # some of them shared a batch


@pytest.mark.parametrize("orientation", range(1, 9))
def test_pixels_are_those_of_training(server: Served, captioner: Captioner, orientation: int) -> None:
    """Pictures that are turned by EXIF data, have transparency or 16 bits pass the same door."""
    picture = Image.radial_gradient("L").resize((90, 60)).convert("RGB")
    picture.paste((250, 20, 20), (5, 5, 40, 25))
    exif = Image.Exif()
    exif[0x0112] = orientation
    file = io.BytesIO()
    picture.save(file, "JPEG", exif=exif)
    found = server.post("/caption", files={"image": file.getvalue()}).json()["captions"][0]
    expected = captioner.caption(file.getvalue())
    assert found["text"] == expected.text
    assert math.isclose(found["log_probability"], expected.log_probability, abs_tol=1e-5)


@pytest.mark.parametrize("options", [[1], "x", {"include_usage": 3}])
def test_a_stream_with_strange_options(server: Served, pictures: list[Path], options: object) -> None:
    body = {"messages": message(pictures[0]), "stream": True, "stream_options": options}
    answer = server.post("/v1/chat/completions", json=body)
    assert answer.status_code == (200 if isinstance(options, dict) else 400)
    assert answer.status_code == 400 or answer.text.endswith("data: [DONE]\n\n")


def test_what_openais_clients_send_by_habit(server: Served, pictures: list[Path], captioner: Captioner) -> None:
    best = captioner.caption(pictures[0]).text
    habits: list[dict[str, Any]] = [
        {"max_tokens": 4096},
        {"top_p": 1},
        {"top_p": 0},
        {"temperature": 0, "seed": -1},
        {"temperature": 1e-8},
    ]
    for more in habits:
        answer = server.post("/v1/chat/completions", json={"messages": message(pictures[0]), **more})
        assert answer.json()["choices"][0]["message"]["content"] == best, more


def test_a_run_is_described(server: Served, run: Path) -> None:
    client = OpenAI(base_url=f"{server.url}/v1", api_key="none")
    assert client.models.retrieve(run.name).id == run.name
    with pytest.raises(NotFoundError):
        client.models.retrieve("nothing")
