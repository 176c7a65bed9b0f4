"""The words of captions with their probabilities, whatever the tokens are."""

from __future__ import annotations

import math

import pytest

from img2seq.data.tokenizer import EOS
from img2seq.data.vocabulary import learn_bpe
from img2seq.report.words import certainty, words_of
from word_cases import WORD_CASES, Written, written


@pytest.mark.parametrize("name", WORD_CASES)
def test_words_have_the_probability_of_their_tokens(name: str) -> None:
    caption, expected = WORD_CASES[name]
    found = words_of(caption)
    assert [text for text, _ in found] == [text for text, _ in expected]
    assert [p and pytest.approx(math.log(p)) for _, p in found] == [value for _, value in expected]


def test_the_words_of_byte_pairs_that_were_learned_make_up_the_text() -> None:
    texts = ["Ein Hund läuft über die Straße.", "a dog naps , 'again' ½", "犬が 走る 🐶", "naïve café"]
    tokenizer = learn_bpe(texts * 3, max_units=300)
    for text in texts:
        numbers = [*tokenizer.encode(text), EOS]
        values = tuple(-0.5 for _ in numbers)
        caption = Written(tokenizer.decode(numbers), tuple(tokenizer.tokens[n] for n in numbers), values)
        found = words_of(caption)
        assert "".join(piece for piece, _ in found) == caption.text == text
        assert [piece for piece, p in found if p is not None] == text.split()
        total = sum(math.log(p) for _, p in found if p is not None)
        assert total == pytest.approx(sum(values[:-1]))  # nothing is counted twice, nothing is left out


def test_certainty_is_the_geometric_mean_without_what_was_given() -> None:
    caption = Written("a b", ("a", "b", "<eos>"), (0.0, math.log(0.5), math.log(0.125)))
    assert certainty(caption, n_given=1) == pytest.approx(0.25)
    assert certainty(written("", [])) == 1
