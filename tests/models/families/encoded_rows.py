"""Rows as a model that reads images reads them: encoded, the trained part as text, and the states they have."""

from tunebook.tokens.encoding import encode_rows

WIDTH = 97


def encoded(model, rows, **options):
    return encode_rows(rows, model.loaded, max_seq_length=200, **options).rows


def words(model, row):
    """The trained part of a row as text."""
    return model.loaded.tokenizer.decode(row.tokens[row.loss_mask].tolist())


def states(model, rows, width=WIDTH):
    return model.family.hidden(model.module, model.family.collate(rows, width))
