import re
import time

import pytest
from mlx_lm.tokenizer_utils import TokenizerWrapper
from transformers import PreTrainedTokenizerFast

from tests.makers.tiny import tiny_tokenizer
from tests.tokens.test_row_facts import BOS, END, UNKNOWN, ids_of, random_rows
from tunebook.tokens import data_report
from tunebook.tokens.encoding import EncodedSet, encode_rows
from tunebook.tokens.stored_rows import read_rows, write_rows
from tunebook.tokens.tally import Account


@pytest.fixture
def inspect(model):
    """The report on rows as the Trainer encodes them."""

    def inspect(rows, max_seq_length=128, **options):
        encoded = encode_rows(rows, model.loaded, max_seq_length=max_seq_length, name="train_dataset", **options)
        return data_report.inspect(encoded, model.loaded.tokenizer)

    return inspect


def row_of(ids: list[int], trained: int) -> dict:
    """Token ids of which the last `trained` are supervised."""
    return {"input_ids": ids, "labels": [-100] * (len(ids) - trained) + ids[len(ids) - trained :]}


def only(report: data_report.DataReport) -> data_report.Finding:
    (finding,) = report.findings
    return finding


def test_an_ordinary_set_has_no_findings_and_the_report_says_so(inspect, rows):
    report = inspect(rows)
    assert report.findings == ()
    assert "Nothing odd was found." in str(report)


def test_the_counts_are_those_of_a_plain_count(inspect, model, rows):
    report = inspect(rows)
    template, tokenizer = "<|im_start|>{role}\n{content}<|im_end|>\n", model.loaded.tokenizer
    texts = ["".join(template.format(**turn) for turn in row["messages"]) for row in rows]
    lengths = sorted(len(tokenizer.encode(text, add_special_tokens=False)) for text in texts)
    answers = [f"{row['messages'][1]['content']}<|im_end|>" for row in rows]
    answered = sum(len(tokenizer.encode(answer, add_special_tokens=False)) for answer in answers)
    newlines = report.trained_tokens - answered  # after <|im_end|>: whether they are trained is not asked here
    assert (report.source_rows, report.encoded_rows, report.tokens) == (12, 12, sum(lengths))
    assert newlines in (0, 12)
    assert (report.shortest, report.longest) == (lengths[0], lengths[-1])
    assert report.median == (lengths[5] + lengths[6]) // 2
    assert report.trained_share == report.trained_tokens / sum(lengths)


def test_cut_rows_are_measured_and_the_remedy_names_a_length_that_keeps_all(inspect, rows):
    whole, report = inspect(rows, 512), inspect(rows, 40)
    longer = [int(length) for length in whole.columns.length if length > 40]
    finding = only(report)
    assert (finding.kind, finding.count) == ("cut", len(longer))
    assert f"{sum(longer) - 40 * len(longer)} tokens lost, at most {max(longer) - 40} of a row" in finding.text
    assert f"TrainingConfig(max_seq_length={max(longer)})" in finding.remedy
    assert inspect(rows, max(longer)).findings == ()


def test_rows_whose_answer_is_beyond_the_limit_are_named(inspect, rows):
    long = {"messages": [{"role": "user", "content": "why " * 60}, {"role": "assistant", "content": "so"}]}
    report = inspect([rows[0], long, *rows[1:], long], 64)
    finding = next(found for found in report.findings if found.kind == "left_out")
    assert (finding.count, finding.numbers) == (2, (1, 13))
    assert (report.source_rows, report.encoded_rows) == (14, 12)
    [length] = re.findall(r"max_seq_length=(\d+)", finding.remedy)
    assert not [found for found in inspect([rows[0], long], int(length)).findings if found.kind in ("cut", "left_out")]


def test_the_length_that_keeps_cut_rows_whole_is_that_of_the_rows_left_out_where_they_are_longer(inspect):
    asked = {"role": "user", "content": "why " * 30}
    answer = {"role": "assistant", "content": "so " * 50}
    cut, left_out = {"messages": [{"role": "user", "content": "why"}, answer]}, {"messages": [asked, answer]}
    report = inspect([cut, left_out], 40)
    assert {found.kind for found in report.findings} == {"cut", "left_out"}
    [length, same] = [re.findall(r"max_seq_length=(\d+)", found.remedy)[0] for found in report.findings]
    assert length == same
    assert inspect([cut, left_out], int(length)).findings == ()


def test_rows_of_a_single_token_are_named_with_the_reason(inspect):
    report = inspect([{"input_ids": [5, 6]}, {"input_ids": [7]}, {"input_ids": [8]}])
    finding = next(found for found in report.findings if found.kind == "never_supervised")
    assert (finding.count, finding.numbers) == (2, (1, 2))
    assert "a single token" in finding.text
    assert not [found for found in report.findings if found.kind == "left_out"]


def test_copies_are_counted_and_the_first_of_each_kind_is_not(inspect, rows):
    finding = only(inspect([rows[3], *rows, rows[3], rows[5]]))
    assert (finding.kind, finding.count, finding.numbers) == ("duplicate", 3, (4, 13, 14))


def test_an_answer_of_whitespace_is_found_among_full_ones(inspect, model):
    full, empty = ids_of(model, "the quick brown fox"), ids_of(model, " \n\n ")
    turns = lambda answer: row_of([BOS, *full, *answer, END], len(answer) + 1)  # noqa: E731
    finding = only(inspect([turns(full), turns(empty), turns([]), turns(full[:1])]))
    assert (finding.kind, finding.numbers) == ("empty_answer", (1, 2))


def test_an_answer_cut_within_its_leading_whitespace_is_not_called_empty(inspect, model):
    before, blank, said = ids_of(model, "the quick"), ids_of(model, "\n"), ids_of(model, "brown fox")
    row = row_of([BOS, *before, *blank, *said, END], len([*blank, *said, END]))
    assert only(inspect([row], 1 + len(before) + len(blank))).kind == "cut"


def test_trained_text_without_an_end_token_is_found(inspect, model):
    text = ids_of(model, "the lazy dog")
    newline = ids_of(model, "\n")
    ended, after_newline, never = [*text, END], [*text, END, *newline], [END, *text]
    rows = [row_of([BOS, *ids], len(ids)) for ids in (ended, after_newline, never, text[:-1])]
    finding = only(inspect(rows))
    assert (finding.kind, finding.numbers) == ("no_end", (2, 3))
    assert "<|im_end|>" in finding.text


def test_an_end_token_with_braces_stands_in_its_finding_as_it_is(model, tmp_path):
    tiny_tokenizer(tmp_path)
    braced = PreTrainedTokenizerFast.from_pretrained(tmp_path, eos_token="{end}")
    text = ids_of(model, "the lazy dog")
    encoded = encode_rows([row_of([BOS, *text], len(text))], model.loaded, max_seq_length=128)
    assert "({end})" in only(data_report.inspect(encoded, TokenizerWrapper(braced))).text


def test_turns_that_a_chat_template_wrote_before_are_found_and_the_same_text_alone_is_not(inspect, model, rows):
    written = [model.loaded.tokenizer.apply_chat_template(row["messages"], tokenize=False) for row in rows[:3]]
    answer = {"role": "assistant", "content": "Yes."}
    twice = [{"messages": [{"role": "user", "content": text}, answer]} for text in written]
    finding = only(inspect(rows[3:] + twice, 512))
    assert (finding.kind, finding.count, finding.numbers) == ("markup", 3, (9, 10, 11))
    assert "{'text': ...}" in finding.remedy
    [said] = encode_rows(twice, model.loaded, max_seq_length=512).notices
    assert said.startswith("3 of 3 rows of rows, the first row 0, hold turns that a chat template wrote before")
    assert inspect([{"text": text} for text in written], 512).findings == ()
    template = model.loaded.tokenizer.apply_chat_template
    asked = template(rows[0]["messages"][:1], tokenize=False, add_generation_prompt=True)
    strings = [{"prompt": asked, "completion": "Yes."}, {"prompt": "Is it so?", "completion": "Yes."}]
    assert only(inspect(strings, 512)).numbers == (0,)
    alpaca = [{"instruction": "Say it.", "input": asked, "output": "Yes."}]
    assert only(inspect(alpaca, 512)).kind == "markup"
    pair = {"prompt": twice[0]["messages"][:1], "chosen": [answer], "rejected": [{**answer, "content": "No."}]}
    assert encode_rows([pair], model.loaded, max_seq_length=512, answers="pairs").account.markup == [0]


def test_pieces_of_raw_text_are_not_asked_for_an_end_before_the_last(inspect):
    report = inspect([{"text": "the quick brown fox jumps over the lazy dog " * 20}], 32)
    assert report.encoded_rows > 3
    assert report.findings == ()
    assert "came in pieces" in str(report)


def test_two_bos_tokens_and_unknown_tokens_are_found(inspect, model):
    text = ids_of(model, "in the sun.")
    rows = [row_of([*start, *text, END], 2) for start in ([BOS], [BOS, BOS], [BOS, UNKNOWN], [])]
    double, unknown = inspect(rows).findings
    assert (double.kind, double.numbers) == ("double_bos", (1,))
    assert (unknown.kind, unknown.numbers) == ("unknown_token", (2,))


def test_a_token_that_is_unknown_and_end_in_one_is_not_called_unknown(model, rows, tmp_path):
    tiny_tokenizer(tmp_path)
    like_gpt2 = PreTrainedTokenizerFast.from_pretrained(tmp_path, unk_token="<|im_end|>")
    encoded = encode_rows(rows, model.loaded, max_seq_length=128)
    assert data_report.inspect(encoded, TokenizerWrapper(like_gpt2)).findings == ()


def test_a_finding_names_five_rows_and_counts_all(inspect, rows):
    finding = only(inspect([rows[0]] * 9))
    assert (finding.count, finding.numbers) == (8, (1, 2, 3, 4, 5))
    assert "rows 1 to 5, …" in str(finding)


def test_the_histogram_holds_every_row_once_and_shows_what_was_cut(inspect, rows):
    report = inspect(rows, 40)
    lengths = [int(length) for length in inspect(rows, 512).columns.length]
    width, counts = report.histogram.width, report.histogram.counts
    bars = [sum(index * width < length <= (index + 1) * width for length in lengths) for index in range(len(counts))]
    assert list(counts) == bars
    assert sum(counts) == len(rows)


def test_one_enormous_row_does_not_flatten_the_histogram(model):
    sizes = [20, 30, 40, 100_000]
    report = data_report.inspect(_random_set(model, sizes, limit=50), model.loaded.tokenizer)
    assert len(report.histogram.counts) * report.histogram.width < 200
    assert report.histogram.counts[-1] == 1


def test_rows_on_the_disk_give_the_same_report_as_rows_in_memory(model, tmp_path):
    encoded = _random_set(model, [5, 9, 30, 7] * 600, limit=20)  # more than are looked at together
    write_rows(tmp_path, encoded.rows, lambda: {})
    on_disk = EncodedSet(read_rows(tmp_path)[0], encoded.account)
    tokenizer = model.loaded.tokenizer
    assert data_report.inspect(on_disk, tokenizer) == data_report.inspect(encoded, tokenizer)


def test_twenty_thousand_rows_take_less_than_two_seconds(model):
    encoded = _random_set(model, [12] * 20_000, limit=20)
    began = time.process_time()
    data_report.inspect(encoded, model.loaded.tokenizer)
    assert time.process_time() - began < 2  # 0.3 s on two slow cores


def _random_set(model, sizes: list[int], *, limit: int) -> EncodedSet:
    rows = random_rows(model, sizes, limit=limit)
    return EncodedSet(rows, Account("train_dataset", limit, rows=len(rows), cut=sum(row.cut > 0 for row in rows)))
