"""Tokenizers: what they cut, what they number, and that a file of theirs is all that is needed."""

from __future__ import annotations

import json
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from img2seq.config.outputs import SequenceTypeInfo
from img2seq.data.text import clean_caption
from img2seq.data.tokenizer import SPECIAL_TOKENS, UNK, Tokenizer
from img2seq.data.vocabulary import build_tokenizer, from_vocab_file, learn_bpe, learn_words
from img2seq.errors import DataError

CAPTIONS = ["a dog runs .", "a dog sleeps .", "A Dog runs in the snow ."]
TEXT = st.text(st.characters(codec="utf-8"), max_size=40)


def words(**options: object) -> Tokenizer:
    return learn_words(CAPTIONS, **({"split_on": " ", "min_freq": 1} | options))  # type: ignore[arg-type]


def test_words_are_numbered_by_frequency_after_the_special_tokens() -> None:
    tokenizer = words(min_freq=2)
    assert tokenizer.tokens == [*SPECIAL_TOKENS, ".", "a", "dog", "runs"]
    assert tokenizer.encode("a cat runs .") == [6, UNK, 8, 5]
    assert words(min_freq=2, lowercase=True).encode("A DOG") == words(min_freq=2, lowercase=True).encode("a dog")


def test_a_caption_that_spells_a_control_token_is_an_unknown_word() -> None:
    assert words().encode("a <eos> <pad> dog") == [words().encode("a")[0], UNK, UNK, words().encode("dog")[0]]
    assert words().decode([0, 1, 2, 3, 4]) == ""
    bpe = learn_bpe(CAPTIONS, max_units=300)
    assert all(number >= len(SPECIAL_TOKENS) for number in bpe.encode("<eos>"))


@pytest.mark.parametrize(
    "tokenizer",
    [words(), words(split_on=""), words(lowercase=True), learn_bpe(CAPTIONS, max_units=300)],
    ids=["word", "char", "lower", "bpe"],
)
def test_a_file_is_all_that_is_needed(tokenizer: Tokenizer) -> None:
    again = Tokenizer.from_json(tokenizer.to_json())
    assert again.digest == tokenizer.digest
    for caption in (*CAPTIONS, "unseen words ☃"):
        assert again.encode(caption) == tokenizer.encode(caption)
        assert again.decode(again.encode(caption)) == tokenizer.decode(tokenizer.encode(caption))


@given(TEXT)
def test_byte_pair_units_write_any_text(text: str) -> None:
    tokenizer = learn_bpe(CAPTIONS, max_units=300)
    assert tokenizer.decode(tokenizer.encode(text)) == clean_caption(text)


def test_known_words_come_back_as_they_were() -> None:
    for caption in CAPTIONS:
        assert words().decode(words().encode(caption)) == caption
        assert words(split_on="").decode(words(split_on="").encode(caption)) == caption


def test_an_empty_vocabulary_is_an_error() -> None:
    with pytest.raises(
        DataError, match="min_freq: 9 leaves an empty vocabulary; the most frequent token is seen 3 time"
    ):
        words(min_freq=9)


def test_vocab_files_of_the_peer_and_of_a_run(tmp_path: Path) -> None:
    path = tmp_path / "vocab.json"
    path.write_text(json.dumps({"<bos>": 0, "<unk>": 1, "<mask>": 2, "<pad>": 3, "<eos>": 4, "dog": 5, "a": 6}))
    assert from_vocab_file(path, split_on=" ", lowercase=False).tokens == [*SPECIAL_TOKENS, "dog", "a"]
    path.write_text(words().to_json())
    assert from_vocab_file(path, split_on=None, lowercase=True).digest == words().digest
    for broken, message in (
        ("[1]", "expected a JSON object"),
        ('{"a": 1, "b": 1}', "each number once"),
        ("{", "not valid JSON"),
    ):
        path.write_text(broken)
        with pytest.raises(DataError, match=message):
            from_vocab_file(path, split_on=" ", lowercase=False)


JOINED = {
    "Chinese": "一只棕色的狗在草地上奔跑",
    "Japanese": "茶色い犬が芝生の上を走っている",
    "Thai": "สุนัขสีน้ำตาลกำลังวิ่งบนสนามหญ้า",
    "Khmer": "ឆ្កែពណ៌ត្នោតកំពុងរត់លើវាលស្មៅ",
    "Lao": "ໝາສີນ້ຳຕານກຳລັງແລ່ນຢູ່ສະໜາມຫຍ້າ",
    "Burmese": "အညိုရောင်ခွေးတစ်ကောင်သည်မြက်ခင်းပေါ်တွင်ပြေးနေသည်",
}
SPACED = {
    "Arabic": "كلب بني يركض على العشب",
    "Hindi": "एक भूरा कुत्ता घास पर दौड़ रहा है",
    "Korean": "갈색 개가 잔디밭 위를 달리고 있다",
    "German": "Ein brauner Hund rennt über die Wiese",
    "Chinese with spaces": "一 只 棕色 的 狗 在 草地 上 奔跑",
}


@pytest.mark.parametrize("split_on", [" ", "words"])
@pytest.mark.parametrize("language", JOINED)
def test_splitting_by_words_is_refused_where_no_spaces_stand_between_them(
    language: str, split_on: str, tmp_path: Path
) -> None:
    captions = [JOINED[language]] * 3
    with pytest.raises(DataError, match=r"split_on: .* no spaces .* split_on: '' .*vocab_file") as caught:
        build_tokenizer(SequenceTypeInfo(min_freq=1, split_on=split_on), captions)
    assert JOINED[language][:20] in str(caught.value), "an example says which captions are meant"
    for other in (SequenceTypeInfo(min_freq=1, split_on=""), SequenceTypeInfo(min_freq=1, tokenizer="bpe")):
        assert (
            build_tokenizer(other, captions).decode(build_tokenizer(other, captions).encode(captions[0])) == captions[0]
        )
    vocabulary = tmp_path / "words.json"
    vocabulary.write_text(json.dumps({captions[0]: 0}), encoding="utf-8")
    meant = build_tokenizer(SequenceTypeInfo(vocab_file=str(vocabulary)), captions)
    assert len(meant.encode(captions[0])) == 1, "who brings a vocabulary means it"


@pytest.mark.parametrize("language", SPACED)
def test_languages_with_spaces_are_split_by_words(language: str) -> None:
    tokenizer = build_tokenizer(SequenceTypeInfo(min_freq=1), [SPACED[language]] * 3)
    assert len(tokenizer.encode(SPACED[language])) == len(SPACED[language].split())
