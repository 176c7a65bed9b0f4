"""The `tokenizers` format: the library that many read it with encodes and decodes as we do, and the two files give our tokenizer back."""

from __future__ import annotations

import csv
import json
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest
import tokenizers
from hypothesis import given
from hypothesis import strategies as st

from conftest import ROOT
from img2seq.data import tokenizers_json as module
from img2seq.data.tokenizer import SPECIAL_TOKENS, Tokenizer
from img2seq.data.tokenizers_json import from_tokenizers, to_tokenizers, tokenizer_config
from img2seq.data.vocabulary import learn_bpe, learn_words
from img2seq.errors import DataError
from tokenizer_cases import CAPTIONS, ODD, TOKENIZERS

FLICKR8K = ROOT.parent / "shared/data/flickr8k/captions_all.csv"
TEXT = st.one_of(
    st.lists(st.sampled_from(ODD), max_size=9).map("".join),
    # Unassigned characters: which are letters depends on the version of Unicode that each library knows.
    st.text(st.characters(exclude_categories=("Cs", "Cn")), max_size=30),
)


def both(tokenizer: Tokenizer) -> tuple[str, str]:
    return to_tokenizers(tokenizer), json.dumps(tokenizer_config(tokenizer, max_length=20))


@pytest.fixture(params=TOKENIZERS)
def tokenizer(request: pytest.FixtureRequest) -> Tokenizer:
    return TOKENIZERS[request.param]


LIBRARY = {name: tokenizers.Tokenizer.from_str(to_tokenizers(tokenizer)) for name, tokenizer in TOKENIZERS.items()}


@pytest.mark.parametrize("name", TOKENIZERS)
@given(text=TEXT, numbers=st.lists(st.integers(0, 300), max_size=9))
def test_the_library_encodes_and_decodes_alike(name: str, text: str, numbers: list[int]) -> None:
    ours, library = TOKENIZERS[name], LIBRARY[name]
    assert library.encode(text).ids == ours.encode(text)
    numbers = [number % len(ours) for number in numbers]
    assert library.decode(numbers) == library.decode(numbers, skip_special_tokens=False) == ours.decode(numbers)


@pytest.mark.parametrize("kind", ["words", "words and punctuation", "characters", "byte pairs"])
@pytest.mark.parametrize("lowercase", [False, True])
def test_all_captions_of_flickr8k_are_encoded_and_decoded_alike(kind: str, lowercase: bool, tmp_path: Path) -> None:
    if not FLICKR8K.is_file():
        pytest.skip(f"needs {FLICKR8K}, which is not here")
    with FLICKR8K.open(encoding="utf-8", newline="") as file:
        captions = [row["Sequence"] for row in csv.DictReader(file)]
    assert len(captions) > 35_000
    if kind == "byte pairs":
        ours = learn_bpe(captions, max_units=4000, lowercase=lowercase)
    else:  # rare words are left out: some are unknown
        split_on = {"words": " ", "words and punctuation": "words", "characters": ""}[kind]
        ours = learn_words(captions, split_on=split_on, min_freq=5, lowercase=lowercase)
    path = tmp_path / "tokenizer.json"
    path.write_text(to_tokenizers(ours), encoding="utf-8")
    library = tokenizers.Tokenizer.from_file(str(path))
    assert library.get_vocab_size() == len(ours)
    assert [library.token_to_id(token) for token in SPECIAL_TOKENS] == [0, 1, 2, 3, 4]
    encoded = [ours.encode(caption) for caption in captions]
    assert [encoding.ids for encoding in library.encode_batch(captions)] == encoded
    assert library.decode_batch(encoded) == [ours.decode(numbers) for numbers in encoded]


def test_the_two_files_give_our_tokenizer_back(tokenizer: Tokenizer) -> None:
    again = from_tokenizers(*both(tokenizer))
    assert again.digest == tokenizer.digest


def test_what_transformers_reads_names_the_special_tokens(tokenizer: Tokenizer) -> None:
    config = tokenizer_config(tokenizer, max_length=20)
    roles = [config[f"{role}_token"] for role in ("bos", "unk", "mask", "pad", "eos")]
    assert tuple(roles) == SPECIAL_TOKENS
    assert config["model_max_length"] == 20
    assert not config["clean_up_tokenization_spaces"], "dog . would become dog."


def test_reading_imports_no_torch() -> None:
    code = f"import sys; sys.path.insert(0, {str(ROOT / 'src')!r}); import img2seq.data.tokenizers_json; print('torch' in sys.modules)"
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert done.stdout.strip() == "False"


def test_what_the_format_cannot_say_is_refused() -> None:
    with pytest.raises(DataError, match="token 6 is an empty text"):
        to_tokenizers(Tokenizer([*SPECIAL_TOKENS, "a", ""], split_on=" "))
    bpe = json.loads(learn_bpe(CAPTIONS, max_units=300).to_json())
    bpe["bpe"]["pre_tokenizer"] = {
        "type": "Split",
        "pattern": {"Regex": "(a*)*b"},
        "behavior": "Removed",
        "invert": False,
    }
    with pytest.raises(DataError, match="byte-pair model"):
        to_tokenizers(Tokenizer.from_json(json.dumps(bpe)))


# --- files that others wrote or changed


def changed(text: str, *path: Any, value: Any) -> str:
    data = part = json.loads(text)
    for key in path[:-1]:
        part = part[key]
    part[path[-1]] = value
    return json.dumps(data)


VOCABULARY = ("model", "vocab")
DAMAGE: dict[str, tuple[tuple[Any, ...], Any]] = {
    "no vocabulary": (("model",), {"type": "WordLevel"}),
    "a vocabulary that is a list": (VOCABULARY, ["<bos>", "a"]),
    "no tokens": (VOCABULARY, {}),
    "a gap": ((*VOCABULARY, "a"), 999),
    "an enormous number": ((*VOCABULARY, "a"), 10**400),
    "a negative number": ((*VOCABULARY, "a"), -1),
    "a number twice": ((*VOCABULARY, "."), 6),
    "a number that is none": ((*VOCABULARY, "a"), float("nan")),
    "a number with a fraction": ((*VOCABULARY, "a"), 5.0),
    "a number that is true": ((*VOCABULARY, "<unk>"), True),
    "a number that is a text": ((*VOCABULARY, "a"), "5"),
    "special tokens elsewhere": (VOCABULARY, {"a": 0, "<bos>": 1, "<unk>": 2, "<mask>": 3, "<pad>": 4, "<eos>": 5}),
    "special tokens in another order": (VOCABULARY, {"<unk>": 0, "<bos>": 1, "<mask>": 2, "<pad>": 3, "<eos>": 4}),
    "a token that is no text": ((*VOCABULARY, "\ud800"), 99),
    "another kind of model": (("model", "type"), "WordPiece"),
    "another unknown token": (("model", "unk_token"), "<pad>"),
    "special tokens that captions can spell": (("added_tokens",), [{"id": 0, "content": "<bos>", "special": True}]),
    "no cleaning": (("normalizer",), None),
    "another cleaning": (("normalizer", "normalizers", 0, "pattern", "Regex"), "(a*)*b"),
    "another split": (("pre_tokenizer",), {"type": "Whitespace"}),
    "another decoder": (("decoder",), {"type": "WordPiece", "prefix": "##", "cleanup": True}),
    "truncation": (("truncation",), {"max_length": 1, "strategy": "LongestFirst", "stride": 0, "direction": "Right"}),
}


@pytest.mark.parametrize("what", DAMAGE)
@pytest.mark.parametrize("kind", ["words", "byte pairs"])
def test_a_file_with_something_else_is_one_error(what: str, kind: str) -> None:
    text, config = both(TOKENIZERS[kind])
    path, value = DAMAGE[what]
    with pytest.raises(DataError, match=r"^export.tokenizer\.json: ") as caught:
        from_tokenizers(changed(text, *path, value=value), config, "export")
    assert len(str(caught.value)) < 400


CONFIG_DAMAGE: dict[str, tuple[tuple[Any, ...], Any]] = {
    "no section": (("img2seq",), None),
    "a section that is a list": (("img2seq",), [" "]),
    "a separator that is a number": (("img2seq", "split_on"), 3),
    "lower case that is a text": (("img2seq", "lowercase"), "no"),
    "another case": (("img2seq", "lowercase"), True),
    "another kind": (("img2seq", "kind"), "unigram"),
    "another begin": (("bos_token",), "<eos>"),
    "spaces cleaned up": (("clean_up_tokenization_spaces",), True),
}


@pytest.mark.parametrize("what", CONFIG_DAMAGE)
@pytest.mark.parametrize("kind", ["words", "byte pairs"])
def test_a_configuration_with_something_else_is_one_error(what: str, kind: str) -> None:
    text, config = both(TOKENIZERS[kind])
    path, value = CONFIG_DAMAGE[what]
    with pytest.raises(DataError, match=r"tokenizer_config\.json"):
        from_tokenizers(text, changed(config, *path, value=value), "export")


def test_a_separator_that_is_not_the_one_of_the_rules_is_one_error() -> None:
    text, config = both(TOKENIZERS["words"])
    with pytest.raises(DataError, match=r"tokenizer\.json: expected the rules"):
        from_tokenizers(text, changed(config, "img2seq", "split_on", value="\t"))


@pytest.mark.parametrize(
    "text", ["", "{", "[]", "null", "NaN", '"a"', "[" * 100_000, '{"a": ' * 100_000, "1" * 5000, "\x00"]
)
def test_what_is_no_json_object_is_one_error(text: str) -> None:
    written, config = both(TOKENIZERS["words"])
    for pair in ((text, config), (written, text)):
        with pytest.raises(DataError):
            from_tokenizers(*pair)


def test_a_file_that_is_too_large_is_not_parsed(monkeypatch: pytest.MonkeyPatch) -> None:
    text, config = both(TOKENIZERS["words"])
    monkeypatch.setattr(module, "MOST_CHARACTERS", len(text) - 1)
    with pytest.raises(DataError, match="expected at most"):
        from_tokenizers(text, config)


@pytest.mark.parametrize(
    "merges", [None, [], ["a b"], [["a"]], [[1, 2]], [["a", "no such token"]], "a b", [["<", "bos>"]]]
)
def test_merges_that_are_none_are_one_error(merges: Any) -> None:
    text, config = both(TOKENIZERS["byte pairs"])
    if merges == []:
        assert from_tokenizers(changed(text, "model", "merges", value=[]), config).encode("a")
        return
    with pytest.raises(DataError):
        from_tokenizers(changed(text, "model", "merges", value=merges), config)


JSON_VALUES = st.recursive(
    st.one_of(
        st.none(), st.booleans(), st.integers(), st.floats(), st.text(max_size=5), st.sampled_from(["BPE", "ByteLevel"])
    ),
    lambda inner: st.one_of(st.lists(inner, max_size=3), st.dictionaries(st.text(max_size=5), inner, max_size=3)),
    max_leaves=5,
)


@pytest.mark.parametrize("kind", ["words", "byte pairs"])
@given(data=st.data())
def test_any_change_gives_the_same_tokenizer_or_one_error(kind: str, data: st.DataObject) -> None:
    files = list(both(TOKENIZERS[kind]))
    which = data.draw(st.integers(0, 1))
    part = whole = json.loads(files[which])
    while True:
        key = data.draw(st.sampled_from(sorted(part) if isinstance(part, dict) else range(len(part))))
        if not isinstance(part[key], dict | list) or not part[key] or data.draw(st.integers(0, 3)) == 0:
            part[key] = data.draw(JSON_VALUES)
            break
        part = part[key]
    files[which] = json.dumps(whole)
    try:
        read = from_tokenizers(*files)
    except DataError as error:
        assert "json" in str(error)
    else:
        assert json.loads(to_tokenizers(read)) == json.loads(files[0])
