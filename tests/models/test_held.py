"""models/loaded.py: what people give in place of the model is answered with the line that makes one."""

import pytest

from tunebook import FastModel, Trainer, memory, scores, verify_export
from tunebook_widgets import Chat, ExportPanel, FitCheck, TokenView

ROWS = [{"prompt": "Who jumps?", "completion": "the fox"}] * 4
TAKERS = {
    "Trainer": lambda model: Trainer(model, train_dataset=ROWS),
    "memory.estimate": memory.estimate,
    "Exam.take": lambda model: scores.Exam(ROWS, metrics=["exact_match"]).take(model),
    "Exam.sitting": lambda model: scores.Exam(ROWS, metrics=["exact_match"]).sitting(model),
    "verify_export": lambda model: verify_export(".", model, ROWS),
    "Chat": Chat,
    "FitCheck": FitCheck,
    "ExportPanel": lambda model: ExportPanel(model, "out"),
    "TokenView": lambda model: TokenView(model, ROWS),
}


@pytest.mark.parametrize("taker", TAKERS)
def test_a_tokenizer_in_place_of_the_model_is_answered_with_the_line_that_makes_both(tiny_folder, taker):
    _, tokenizer = FastModel.from_pretrained(tiny_folder)
    with pytest.raises(TypeError, match=r"takes a model, and was given a TokenizerWrapper; .*from_pretrained"):
        TAKERS[taker](tokenizer)
