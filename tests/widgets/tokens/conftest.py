"""What several tests of the widgets show."""

import pytest

from tests.widgets.odd_rows import odd_rows
from tunebook_widgets import TokenView


@pytest.fixture
def odd(model) -> TokenView:
    return TokenView(model, odd_rows(model.loaded.tokenizer), max_seq_length=64)
