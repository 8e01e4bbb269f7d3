"""Rows of preferences against TRL's own processing: the same token ids, the same answers in them, the same cuts."""

from dataclasses import replace

import pytest
from mlx_lm.tokenizer_utils import TokenizerWrapper
from transformers import AutoTokenizer

from tests.data.formats.conversations import TOOL_TEMPLATE, TOOL_TURNS
from tests.data.formats.test_chat_templates import FOLDER, NAMES
from tests.makers.tiny import CHAT_TEMPLATE, tiny_model_folder, tiny_tokenizer
from tunebook import FastModel
from tunebook.data.formats import BadRow, RefusedRows
from tunebook.data.formats.preferences import preference_reader, told_kind
from tunebook.data.opened import ReadingOptions
from tunebook.models.families.text import TextFamily
from tunebook.models.generation import opening
from tunebook.parity.references import trl_rows
from tunebook.tokens import encoding
from tunebook.tokens.answers import encode_answers, fitted_answers, mismatched
from tunebook.tokens.collation import collated
from tunebook.tokens.data_report import inspect
from tunebook.tokens.encoding import encode_rows
from tunebook.tokens.tally import Account


def reader_of(rows, tokenizer, kind, **options):
    """The reader of a set that is one of `kind`."""
    told_kind(rows, kind, options.get("formatting_func"))
    return preference_reader(tokenizer, kind, **options)


@pytest.fixture(scope="module")
def module(tmp_path_factory):
    return FastModel.from_pretrained(tiny_model_folder(tmp_path_factory.mktemp("tiny")))[0].module


def with_template(folder, template):
    tiny_tokenizer(folder, chat_template=template)
    return AutoTokenizer.from_pretrained(folder)


def ours(rows, tokenizer, module, kind="pairs", max_length=10_000):
    """Rows as the kit has them, and what was counted."""
    wrapped = TokenizerWrapper(tokenizer)
    read = reader_of(rows, wrapped, kind)
    account = Account(name="rows", max_seq_length=max_length)
    encoded = encode_answers([read(row) for row in rows], TextFamily(module, wrapped))
    numbered = (replace(row, number=number) for number, row in enumerate(encoded))
    return [kept for row in numbered for kept in fitted_answers(row, account)], account


def sides(row):
    return [(side.tokens.tolist(), side.loss_mask.astype(int).tolist()) for side in row.sequences]


def said(role, content):
    return {"role": role, "content": content}


STRINGS = [
    {"prompt": "What color is the sky?", "chosen": " It is blue.", "rejected": " It is green, I'd say."},
    {"prompt": "Count to three: one", "chosen": ", two, three.", "rejected": """ tune tunes"""},
    {"prompt": "The sky is", "chosen": "land", "rejected": " blue"},  # a token may merge with the prompt's last
    {"prompt": "Überall\n\n", "chosen": "\nça va<|endoftext|>", "rejected": "日本語"},
]
IMPLIED = [
    {"chosen": "The sky is blue today.", "rejected": "The sky is green today."},
    {"chosen": "Q: why?\nA: tune", "rejected": "Q: why?\nA: tune the dog"},
    {"chosen": "Q: 3 to 17 two", "rejected": "Q: 3 to 12"},
]
TALKS = [
    {
        "prompt": [said("user", "Where are you?")],
        "chosen": [said("assistant", "In Paris.")],
        "rejected": [said("assistant", "Nowhere at all, I am sure.")],
    },
    {
        "prompt": [said("user", "Who?"), said("assistant", "I."), said("user", "And now?")],
        "chosen": [said("assistant", "In Rome,\nby now.")],
        "rejected": [said("assistant", "no")],
    },
]
IMPLIED_TALKS = [
    {"chosen": row["prompt"] + row["chosen"], "rejected": row["prompt"] + row["rejected"]} for row in TALKS
]
SETS = {"strings": STRINGS, "implied": IMPLIED, "talks": TALKS, "implied talks": IMPLIED_TALKS}


@pytest.mark.parametrize("kind", SETS)
@pytest.mark.parametrize("max_length", [10_000, 12, 8])
def test_pairs_are_the_token_ids_that_trl_trains_on(tmp_path, module, kind, max_length):
    tokenizer = with_template(tmp_path, CHAT_TEMPLATE)
    rows, account = ours(SETS[kind], tokenizer, module, max_length=max_length)
    assert [sides(row) for row in rows] == trl_rows.pairs(SETS[kind], tokenizer, max_length)
    assert len(rows) + len(account.left_out) == len(SETS[kind])
    assert account.cut == sum(row.cut > 0 for row in rows)


# Their models think unless they are told not to. mlx-lm tells a template so where the tokenizer has no such tokens.
THINKING = ("glm4moe", "nemotron", "qwen3")
# They want a content in parts, which TRL makes of strings for the processors of images alone.
IN_PARTS = {"idefics3", "llava_next", "smolvlm"}


@pytest.mark.parametrize("name", [name for name in NAMES if name not in IN_PARTS])
def test_with_the_template_of_each_released_model_pairs_are_trls_token_ids(tmp_path, module, name):
    tokenizer = with_template(tmp_path, (FOLDER / f"{name}.jinja").read_text())
    if name.startswith(THINKING) and not name.endswith("nothink"):
        tokenizer.add_tokens(["<think>", "</think>"], special_tokens=True)
    for rows in (TALKS, IMPLIED_TALKS):
        assert [sides(row) for row in ours(rows, tokenizer, module)[0]] == trl_rows.pairs(rows, tokenizer, None)


def test_tools_and_answers_that_call_them_are_trls_token_ids(tmp_path, module):
    tokenizer = with_template(tmp_path, TOOL_TEMPLATE)
    tools = [{"type": "function", "function": {"name": "f"}}]
    called = {
        "prompt": TOOL_TURNS[:1],
        "chosen": TOOL_TURNS[1:],
        "rejected": [{"role": "assistant", "content": "Warm."}],
        "tools": tools,
    }
    for turn in TOOL_TURNS:
        turn.setdefault("content", "")
    [row], _ = ours([called], tokenizer, module)
    assert [sides(row)] == trl_rows.pairs([called], tokenizer, None)


JUDGED = [
    {"prompt": "What color is the sky?", "completion": " Blue.", "label": True},
    {"prompt": "Who?", "completion": " I, and you and all the others.", "label": False},
    {"prompt": "Where are you now, and why?", "completion": " In Rome.", "label": 1},
    {"prompt": "Say tune", "completion": "s and tones", "label": 0},
]
JUDGED_TALKS = [{"prompt": row["prompt"], "completion": row["chosen"], "label": True} for row in TALKS]


@pytest.mark.parametrize("rows", [JUDGED, JUDGED_TALKS], ids=["strings", "talks"])
@pytest.mark.parametrize("max_length", [10_000, 20])
def test_judged_answers_and_their_mismatches_are_the_token_ids_that_trl_trains_on(tmp_path, module, rows, max_length):
    tokenizer = with_template(tmp_path, CHAT_TEMPLATE)
    found, _ = ours(rows, tokenizer, module, "labelled", max_length)
    theirs = trl_rows.labelled(rows, tokenizer, max_length, batch_size=len(rows))
    assert [sides(row) for row in found] == [whole for whole, _ in theirs]
    assert [row.label for row in found] == [bool(rows[row.number]["label"]) for row in found]
    if max_length == 10_000:  # TRL mismatches answers before they are cut
        assert [sides(row) for row in mismatched(found, max_length)] == [other for _, other in theirs]


def test_what_was_cut_and_left_out_is_counted_and_said(tmp_path, module):
    rows = [STRINGS[0], {"prompt": "a " * 40, "chosen": "b", "rejected": "c"}]
    tokenizer = with_template(tmp_path, CHAT_TEMPLATE)
    whole, _ = ours(rows[:1], tokenizer, module)
    [kept], account = ours(rows, tokenizer, module, max_length=whole[0].longest - 2)
    assert (kept.cut, account.longest_cut, account.left_out) == (2, 2, [1])
    assert set(account.by_kind()) == {"cut", "left out"}


@pytest.mark.parametrize("kind", ["strings", "talks"])
def test_no_row_of_these_holds_something_unread_but_a_column_that_nobody_knows_is_named(tmp_path, kind):
    tokenizer = TokenizerWrapper(with_template(tmp_path, CHAT_TEMPLATE))
    row = {**SETS[kind][0], "score_chosen": 2, "score_rejected": 1.5, "source": "made up", "note": None}
    assert reader_of([row], tokenizer, "pairs")(row).unread == ("column 'source'",)


def test_conversations_without_a_template_name_the_ways_out(tmp_path):
    tokenizer = TokenizerWrapper(with_template(tmp_path, None))
    with pytest.raises(ValueError, match=r"chat_template=\.\.\. to from_pretrained, or give the rows strings"):
        reader_of(TALKS, tokenizer, "pairs")(TALKS[0])
    assert reader_of(STRINGS, tokenizer, "pairs")(STRINGS[0]).wholes
    with pytest.raises(BadRow, match="image"):
        reader_of(STRINGS, tokenizer, "pairs")({**STRINGS[0], "images": ["a.png"]})


# Through the whole of the data path

PAIRS = STRINGS[:3]


@pytest.fixture(scope="module")
def loaded(tmp_path_factory):
    return FastModel.from_pretrained(tiny_model_folder(tmp_path_factory.mktemp("loaded")))[0].loaded


def test_rows_of_preferences_are_encoded_as_a_set_and_kept_in_the_cache(loaded, monkeypatch):
    rows = [{**PAIRS[0], "chosen": f"{PAIRS[0]['chosen']} {number}"} for number in range(4)]
    at_once = encode_rows(rows, loaded, max_seq_length=64, answers="pairs")
    monkeypatch.setattr(encoding, "CACHED_ROWS", 2)
    written, read = (encode_rows(rows, loaded, max_seq_length=64, answers="pairs") for _ in range(2))
    assert [row.digest for row in at_once.rows] == [row.digest for row in written.rows]
    assert [row.digest for row in at_once.rows] == [row.digest for row in read.rows]
    assert not isinstance(read.rows, list)
    assert all(row.second for row in read.rows)
    judged = [{"prompt": row["prompt"], "completion": row["chosen"], "label": True} for row in rows]
    as_text, as_judged = (encode_rows(judged, loaded, max_seq_length=64, answers=kind) for kind in (None, "labelled"))
    assert [row.label for row in as_text.rows] == [None] * 4
    assert [row.label for row in as_judged.rows] == [True] * 4


def test_malformed_rows_are_told_together_and_may_be_left_out(loaded):
    rows = [*PAIRS, {**PAIRS[0], "rejected": PAIRS[0]["chosen"]}, {**PAIRS[0], "rejected": None}]
    with pytest.raises(
        RefusedRows, match=r"2 of 5 rows of rows cannot be trained on(?s:.*)the same(?s:.*)no 'rejected'"
    ):
        encode_rows(rows, loaded, max_seq_length=64, answers="pairs")
    kept = encode_rows(rows, loaded, max_seq_length=64, answers="pairs", skip_bad_rows=True)
    assert [row.number for row in kept.rows] == [0, 1, 2]
    assert "the same" in " ".join(kept.notices)


def test_answers_that_go_past_the_chat_template_are_told_of(loaded, tmp_path):
    asked = [said("user", "What color is the sky?")]
    turns = {"prompt": asked, "chosen": [said("assistant", "Blue.")], "rejected": [said("assistant", "Green.")]}
    judged = [{"prompt": PAIRS[0]["prompt"], "completion": " Blue.", "label": True}]
    bare = encode_rows([turns, *PAIRS[:2]], loaded, max_seq_length=64, answers="pairs")
    [notice] = bare.notices
    assert notice.startswith("2 of 3 rows of rows, the first row 1, are read as plain text, as in TRL,")
    assert "a list of messages" in notice
    [finding] = [one for one in inspect(bare, loaded.tokenizer).findings if one.kind == "bare"]
    assert (finding.count, finding.numbers) == (2, (1, 2))
    assert "1 of 1" in " ".join(encode_rows(judged, loaded, max_seq_length=64, answers="labelled").notices)
    assert not encode_rows([turns], loaded, max_seq_length=64, answers="pairs").notices
    assert not encode_rows([{"text": "The sky is blue."}], loaded, max_seq_length=64).notices
    base, _ = FastModel.from_pretrained(tiny_model_folder(tmp_path, chat_template=None))
    assert not encode_rows(PAIRS, base.loaded, max_seq_length=64, answers="pairs").notices


def test_pairs_that_are_cut_before_their_answers_part_are_told_of(loaded):
    part_late = {"prompt": "The sky is", "chosen": " blue" * 50 + " now.", "rejected": " blue" * 50 + " then."}
    part_early = {**part_late, "rejected": " green" * 50}
    kept = encode_rows([PAIRS[0], part_early, part_late], loaded, max_seq_length=32, answers="pairs")
    assert len(kept.rows) == 3
    (said,) = [notice for notice in kept.notices if "the same" in notice]
    assert said.startswith("Within 32 tokens both answers of 1 of 3 rows of rows are the same, the first row 2: ")


def test_a_batch_of_judged_answers_brings_the_mismatched(loaded):
    encoded = encode_rows(JUDGED, loaded, max_seq_length=64, answers="labelled").rows
    batch, _ = collated(loaded.family, encoded, 64)
    others = batch["mismatched"]
    assert batch["labels"].tolist() == [True, False, True, False]
    for number, row in enumerate(mismatched(encoded, 64)):
        assert others["tokens"][number, : len(row.tokens)].tolist() == row.tokens.tolist()
        assert others["loss_mask"][number].sum().item() == row.supervised_tokens


@pytest.mark.parametrize("kind", ["strings", "talks"])
def test_what_is_sampled_of_such_a_row_is_its_prompt(loaded, kind):
    row = SETS[kind][0]
    answers = reader_of([row], loaded.tokenizer, "pairs")(row)
    prompt = opening(answers)
    assert prompt.example == answers.prompt
    assert prompt.shown == answers.prompt.text.strip()


@pytest.mark.parametrize(
    "given", [{"format": "messages"}, {"train_on": "everything"}, {"response_markers": ("user", "assistant")}]
)
def test_settings_of_rows_that_are_trained_as_they_stand_are_not_passed_over_in_silence(given):
    with pytest.raises(ValueError, match=f"^{next(iter(given))} is for rows that are trained as they stand"):
        ReadingOptions(answers="pairs", **given)
    assert ReadingOptions(**given).answers is None
