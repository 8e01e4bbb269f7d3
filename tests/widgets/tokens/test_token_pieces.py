"""tokens/token_pieces.py: the text of each token, put together again."""

import random

import pytest
from tokenizers import Tokenizer, decoders, models

from tunebook_widgets.tokens.token_pieces import pieces, visible


def cut_up(tokenizer, ids: list[int], trained: list[bool] | None = None):
    return pieces(ids, trained or [False] * len(ids), decode=tokenizer.decode, special={0, 1, 2})


def test_the_pieces_of_a_text_are_the_text_and_their_ids_are_its_ids(model):
    tokenizer = model.loaded.tokenizer
    text = "où est l'été, 日本語 👩🏽 naïve\n\tdef f():\n  ½"
    ids = [1, *tokenizer.encode(text, add_special_tokens=False), 2]
    made = cut_up(tokenizer, ids)
    assert "".join(piece.text for piece in made) == f"<|im_start|>{text}<|im_end|>"
    assert [token for piece in made for token in piece.ids] == ids
    assert any(len(piece.ids) > 1 for piece in made)
    assert [piece.text for piece in made if piece.special] == ["<|im_start|>", "<|im_end|>"]
    assert "\ufffd" not in "".join(piece.text for piece in made)


def test_no_token_and_no_supervision_is_lost_on_random_bytes(model):
    tokenizer, rng = model.loaded.tokenizer, random.Random(0)
    for _ in range(40):
        ids = [rng.randrange(len(tokenizer)) for _ in range(rng.randrange(1, 60))]
        trained = [rng.random() < 0.5 for _ in ids]
        made = cut_up(tokenizer, ids, trained)
        assert [(token, piece.trained) for piece in made for token in piece.ids] == list(zip(ids, trained, strict=True))


def test_a_character_that_only_looks_unfinished_takes_no_more_tokens_than_a_character_may(model):
    ids = model.loaded.tokenizer.encode("\ufffd" * 20, add_special_tokens=False)
    made = cut_up(model.loaded.tokenizer, ids)
    assert "".join(piece.text for piece in made) == "\ufffd" * 20
    assert [len(piece.ids) for piece in made] == [3] * 20  # one for each byte in UTF-8


def test_bytes_that_are_no_character_are_pieces_of_their_own(model):
    tokenizer = model.loaded.tokenizer
    first, *rest = tokenizer.encode("日", add_special_tokens=False)
    a = tokenizer.encode("a", add_special_tokens=False)
    made = cut_up(tokenizer, [first, *a, first, 2, first, *rest, *rest])
    strays = ["\ufffd"] * len(rest)
    assert [piece.text for piece in made] == ["\ufffd", "a", "\ufffd", "<|im_end|>", "日", *strays]
    assert [piece.text for piece in made if piece.special] == ["<|im_end|>"]


def test_blanks_between_words_survive_a_decoder_that_drops_the_first():
    words = {"<s>": 0, "▁the": 1, "▁dog": 2, "s": 3, "▁": 4}
    tokenizer = Tokenizer(models.WordLevel(words, unk_token="<s>"))
    tokenizer.decoder = decoders.Metaspace()  # pyright: ignore[reportAttributeAccessIssue]
    ids = [1, 2, 3, 4, 2]
    made = pieces(ids, [False] * 5, decode=tokenizer.decode, special=set())
    assert "".join(piece.text for piece in made) == tokenizer.decode(ids) == "the dogs  dog"
    assert [piece.text for piece in made][1] == " dog"


@pytest.mark.parametrize("char", "\x00\x07\x08\r\x1b\x7f\x85\x9b\u00ad\u061c\u200b\u200f\u202a\u202e\u2028\u2066\ufeff")
def test_a_character_that_acts_or_hides_is_written_as_its_number(char):
    shown = visible(f"a{char}b")
    assert shown == f"a⟨U+{ord(char):04X}⟩b"


def test_ordinary_text_of_any_script_is_left_alone():
    text = "tab\there\nשלום مرحبا 日本 é é 👩🏽 ½ |<>&\"'`"
    assert visible(text) == text


def test_the_tokens_of_a_picture_are_one_piece_that_says_how_many_they_are(model):
    tokenizer, (dog,) = model.loaded.tokenizer, model.loaded.tokenizer.encode("!", add_special_tokens=False)
    ids = [1, 0, 0, 0, 0, 0, 2, 2, *[dog] * 5, 0, 0, 0, 0]
    made = cut_up(tokenizer, ids, [False] * (len(ids) - 4) + [True] * 4)
    assert [token for piece in made for token in piece.ids] == ids
    pad, start, end = (tokenizer.decode([token]) for token in (0, 1, 2))
    assert [piece.text for piece in made] == [start, f"{pad} × 5", end, end, *"!!!!!", *[pad] * 4]
