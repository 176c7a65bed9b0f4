"""`split_on: words`: what is cut off, how sentences are written again, and that scores do not change."""

from __future__ import annotations

import csv
from collections import Counter
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from conftest import SHARED, needs_flickr8k
from img2seq.data.text import clean_caption
from img2seq.data.tokenizer import SPECIAL_TOKENS, UNK, Tokenizer
from img2seq.data.vocabulary import from_vocab_file, learn_words
from img2seq.data.words import PIECE, join
from img2seq.metrics.ptb import ptb_tokenize
from tokenizer_cases import ODD

cut = PIECE.findall
ODD_TEXT = st.one_of(
    st.lists(st.sampled_from([*ODD, " ", " "]), max_size=12).map("".join), st.text(st.characters(codec="utf-8"))
)

PIECES = {
    "A girl climbs a rock.": ["A", "girl", "climbs", "a", "rock", "."],
    "The girl's dog isn't wet, it's dry!": ["The", "girl", "'s", "dog", "is", "n't", "wet", ",", "it", "'s", "dry", "!"],
    "They’re in a t-shirt at 5 o'clock": ["They", "’re", "in", "a", "t-shirt", "at", "5", "o'clock"],
    'It says "stop" (3.5 m, 1,000 kg, 10:30).': ["It", "says", '"', "stop", '"', "(", "3.5", "m", ",", "1,000", "kg", ",", "10:30", ")", "."],
    "the boys' dog and rock 'n roll": ["the", "boys", "'", "dog", "and", "rock", "'n", "roll"],
    "¿Qué hace? «Nada», l’homme dit.": ["¿", "Qué", "hace", "?", "«", "Nada", "»", ",", "l’homme", "dit", "."],
    "a D.C. map... of statefarm.com": ["a", "D.C", ".", "map", ".", ".", ".", "of", "statefarm.com"],
    "a <bos> at AT&T, and/or #1 – $5": ["a", "<", "bos", ">", "at", "AT&T", ",", "and/or", "#1", "–", "$5"],
    "एक कुत्ता दौड़ रहा है।": ["एक", "कुत्ता", "दौड़", "रहा", "है", "।"],
    "": [],
}  # fmt: skip


@pytest.mark.parametrize("text", PIECES)
def test_sentences_are_cut_into_words_and_punctuation_and_come_back(text: str) -> None:
    assert cut(clean_caption(text)) == PIECES[text]
    assert join(PIECES[text], capitals=False) == clean_caption(text)


TREEBANK = {
    "a girl 's dog does n't climb a rock .": "A girl's dog doesn't climb a rock.",
    'a sign says " stop , dogs " ( big ) ; see .': 'A sign says "stop, dogs" (big); see.',
    '" happy birthday " is written': '"Happy birthday" is written',
    'a 12 " ruler': 'A 12" ruler',
    "a man in a ' devil ' outfit": "A man in a 'devil' outfit",
    "two boys ' dogs": "Two boys' dogs",
    "two dogs . a cat ! is it one ? yes .": "Two dogs. A cat! Is it one? Yes.",
    "mr. smith of d.c. with one": "Mr. smith of d.c. with one",
    "école": "École",
    "ßa": "ßa",
    "ǆa": "ǅa",
    "3 dogs": "3 dogs",
}


@pytest.mark.parametrize("text", TREEBANK)
def test_what_stands_between_spaces_is_written_as_people_do(text: str) -> None:
    assert join(cut(text), capitals=True) == TREEBANK[text]


@given(ODD_TEXT)
def test_pieces_are_all_of_the_text_but_its_spaces(text: str) -> None:
    text = clean_caption(text)
    pieces = cut(text)
    assert "".join(pieces) == text.replace(" ", "")
    assert all(piece and " " not in piece for piece in pieces)
    assert not set(pieces) & set(SPECIAL_TOKENS), "no caption can spell a special token"
    assert join(pieces, capitals=False).replace(" ", "") == text.replace(" ", "")


@given(ODD_TEXT)
def test_the_vocabulary_of_a_caption_writes_it(text: str) -> None:
    if not cut(clean_caption(text)):
        return
    for lowercase in (False, True):
        tokenizer = learn_words([text], split_on="words", min_freq=1, lowercase=lowercase)
        numbers = tokenizer.encode(text)
        assert UNK not in numbers
        assert tokenizer.decode(numbers) == join(cut(tokenizer.normalise(text)), capitals=lowercase)
        assert Tokenizer.from_json(tokenizer.to_json()).digest == tokenizer.digest


def test_capitals_are_kept_or_restored() -> None:
    captions = ["A Dog meets Tom.", "two dogs meet."]
    kept = learn_words(captions, split_on="words", min_freq=1)
    assert [kept.decode(kept.encode(text)) for text in captions] == captions
    lower = learn_words(captions, split_on="words", min_freq=1, lowercase=True)
    assert [lower.decode(lower.encode(text)) for text in captions] == ["A dog meets tom.", "Two dogs meet."]
    assert lower.encode("TWO Dogs") == lower.encode("two dogs")


def test_a_vocabulary_of_words_can_be_given(tmp_path: Path) -> None:
    path = tmp_path / "words.json"
    path.write_text('{"dog": 0, ".": 1, "a": 2}', encoding="utf-8")
    tokenizer = from_vocab_file(path, split_on="words", lowercase=True)
    assert tokenizer.decode(tokenizer.encode("A dog.")) == "A dog."


@needs_flickr8k
def test_the_captions_of_flickr8k_come_back_and_score_as_before() -> None:
    with (SHARED / "data/flickr8k/captions_all.csv").open(encoding="utf-8", newline="") as file:
        captions = [row["Sequence"] for row in csv.DictReader(file)]
    tokenizer = learn_words(captions, split_on="words", min_freq=1, lowercase=True)
    back = [tokenizer.decode(tokenizer.encode(caption)) for caption in captions]
    scored = Counter(ptb_tokenize(one) == ptb_tokenize(other) for one, other in zip(captions, back, strict=True))
    assert scored[False] == 1, "near 3rd St . -> near 3rd st."
    assert sum(text.endswith(" .") for text in captions) > 32_000
    assert not [text for text in back if " ." in text or " ," in text or " 's " in text or " n't" in text]
    assert all(text[0] == text[0].upper() for text in back)
