"""The tokenizer says what pycocoevalcap's says: on every real caption, on recorded probes and on random ones."""

from __future__ import annotations

import doctest
import json
import random
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st
from oracle import flickr8k_captions, needs_java, reference_tokens

from conftest import SHARED, needs_flickr8k
from img2seq.metrics import ptb, ptb_tokenize
from img2seq.metrics.ptb_rules import ABBREVIATIONS

# What the reference makes of 1,300 strings; `test_the_record_is_true` holds the record to the reference.
PROBES: dict[str, str] = json.loads((Path(__file__).parent / "ptb_probes.json").read_text(encoding="utf-8"))


@pytest.mark.parametrize(
    ("text", "tokens"),
    [
        ("A dog runs .", "a dog runs"),
        ("22 3/4 inches", "22\u00a03/4 inches"),
        ("at 5:54pm", "at 5:54 pm"),
        ("in KY.", "in ky."),
        ("the U.S.A", "the u.s.a"),
        ("Pe'e", "pe'e"),
        ("(a dog)", "-lrb- a dog -rrb-"),
        ("I can't, cannot, gonna", "i ca n't can not gon na"),
        ("dogs' dog's 'tis o'clock", "dogs dog 's 't is o'clock"),
        ("No. 5 is no. one", "no. 5 is no one"),
        ("grass.The dog", "grass.the dog"),
        ("\u00a35, \u20ac5, 5\u00a2, \u00bd", "# 5 $ 5 5 cents 1/2"),
        ("a dog \U0001f600 runs", "a dog runs"),
        ("caf\u00e9 \u5317\u4eac", "caf\u00e9 \u5317\u4eac"),
        ("a\u00a0dog\tand\na cat", "a dog and a cat"),
        ("22\n3/4", "22\u00a03/4"),
        ("a dog\r\nand\u2028a cat", "a dog and a cat"),
        ("", ""),
        (" \n ", ""),
        ("...", ""),
        ("\ud800 a", "a"),
    ],
)
def test_corner_cases(text: str, tokens: str) -> None:
    assert ptb_tokenize(text) == tokens.split(" ") if tokens else ptb_tokenize(text) == []


def test_recorded_probes() -> None:
    wrong = {text: ptb_tokenize(text) for text, said in PROBES.items() if " ".join(ptb_tokenize(text)) != said}
    assert not wrong


@given(st.text(alphabet=st.characters(), max_size=40) | st.text(alphabet="aQ1'.,-/&@#:;()<> \n", max_size=40))
def test_any_text_gives_tokens_without_spaces_around_them(text: str) -> None:
    tokens = ptb_tokenize(text)
    assert all(tokens)
    assert all(" " not in token and "\n" not in token for token in tokens)
    assert not ptb.PUNCTUATION.intersection(tokens)


def test_the_example_in_the_documentation() -> None:
    assert doctest.testmod(ptb).failed == 0


@needs_flickr8k
def test_the_direct_way_equals_the_rules() -> None:
    captions = [caption for _, caption in flickr8k_captions()[::4]]
    captions += [caption.replace(" .", ".").replace(" ,", ",") for caption in captions]
    captions += [f"a man in {word}{end}" for word in sorted(ABBREVIATIONS) for end in (".", " .", ", a")]
    for caption in captions:
        by_rules = [token for token in ptb._all_tokens(caption) if token not in ptb.PUNCTUATION]
        assert ptb_tokenize(caption) == by_rules


@needs_java
@needs_flickr8k
def test_every_real_caption_has_the_reference_tokens(tmp_path: Path) -> None:
    coco = json.loads((SHARED / "data/coco_mini/annotations/captions_train2017.json").read_text())
    captions = [caption for _, caption in flickr8k_captions()]
    captions += [annotation["caption"] for annotation in coco["annotations"]]
    assert len(captions) == 35_850
    wrong = [
        (caption, ptb_tokenize(caption), tokens)
        for caption, tokens in zip(captions, reference_tokens(captions, tmp_path), strict=True)
        if ptb_tokenize(caption) != tokens
    ]
    assert not wrong


@needs_java
def test_the_record_is_true(tmp_path: Path) -> None:
    said = reference_tokens([line for text in PROBES for line in (text, "xx")], tmp_path)[::2]
    assert [" ".join(tokens) for tokens in said] == list(PROBES.values())


@needs_java
@needs_flickr8k
def test_random_captions_have_the_reference_tokens(tmp_path: Path) -> None:
    captions = _disturbed_captions(6000, seed=0)
    said = reference_tokens([line for caption in captions for line in (caption, "xx")], tmp_path)[::2]
    wrong = [
        (caption, ptb_tokenize(caption), tokens)
        for caption, tokens in zip(captions, said, strict=True)
        if ptb_tokenize(caption) != tokens
    ]
    assert not wrong


def _disturbed_captions(n: int, *, seed: int) -> list[str]:
    """Return real captions with odd words put in, signs stuck on and words joined or in capitals."""
    chance = random.Random(seed)
    captions = [caption for _, caption in flickr8k_captions()]
    # The words that the recorded probes put between "a dog" and "runs".
    odd = [text[6:-5] for text in PROBES if text.startswith("a dog ") and text.endswith(" runs")]
    signs = list(".,;:!?'\"-()/&#$%*+@[]_`~\u2026\u2019\u2018\u201c\u201d\u2013")
    disturbed = []
    for _ in range(n):
        words = chance.choice(captions).split()
        for _ in range(chance.choice([1, 1, 2, 3])):
            place, way = chance.randrange(len(words)), chance.random()
            if way < 0.5:
                words.insert(place, chance.choice(odd))
            elif way < 0.65:
                words[place] += chance.choice(signs)
            elif way < 0.75:
                words[place] = chance.choice(signs) + words[place]
            elif way < 0.85:
                words[place : place + 2] = [chance.choice(["", *signs]).join(words[place : place + 2])]
            elif way < 0.92:
                words[place] = chance.choice([words[place].upper(), words[place].capitalize()])
            else:
                number = chance.choice([chance.randrange(10), chance.randrange(3000)])
                words.insert(
                    place, f"{number}{chance.choice(['', '.', '%', 'th', 's', '/2', ':30', 'pm', 'ft.', '.5'])}"
                )
        disturbed.append(" ".join(words))
    return disturbed
