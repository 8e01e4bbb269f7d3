import pytest

from tunebook.tokens.encoding import encode_rows
from tunebook.train.evaluation import score, score_now


@pytest.fixture
def encoded(tuned, rows):
    return encode_rows(rows, tuned.loaded, max_seq_length=128).rows


def test_the_score_does_not_depend_on_the_batch_size(tuned, encoded):
    scores = [
        score_now(tuned.module, tuned.family, encoded, batch_size=size, max_seq_length=128) for size in (1, 5, 12, 50)
    ]
    assert all(one.loss == pytest.approx(scores[0].loss, rel=1e-5) for one in scores)
    assert {one.tokens for one in scores} == {sum(row.supervised_tokens for row in encoded)}


def test_every_token_counts_the_same_however_the_rows_differ(tuned, encoded):
    """The score of all rows is the token-weighted, not the plain, mean of the rows' own scores."""
    alone = [score_now(tuned.module, tuned.family, [row], batch_size=1, max_seq_length=128) for row in encoded]
    weighted = sum(one.loss * one.tokens for one in alone) / sum(one.tokens for one in alone)
    assert score_now(tuned.module, tuned.family, encoded, batch_size=4, max_seq_length=128).loss == pytest.approx(
        weighted, rel=1e-5
    )


def test_dropout_is_off_while_scoring_and_on_again_after(model, rows):
    from tunebook import FastModel

    FastModel.get_peft_model(model, r=4, lora_dropout=0.5)
    model.module.train()
    encoded = encode_rows(rows, model.loaded, max_seq_length=128).rows
    twice = [score_now(model.module, model.family, encoded, batch_size=4, max_seq_length=128).loss for _ in range(2)]
    assert twice[0] == twice[1]
    assert model.module.training


def test_giving_up_in_the_middle_leaves_the_mode_as_it_was(tuned, encoded):
    tuned.module.train()
    scoring = score(tuned.module, tuned.family, encoded, batch_size=4, max_seq_length=128)
    next(scoring)
    scoring.close()
    assert tuned.module.training
