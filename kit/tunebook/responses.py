"""What of a conversation is trained, where its template cannot tell: what stands behind a marker."""

from dataclasses import replace

from .trainer import Trainer


def train_on_responses_only(trainer: Trainer, *, instruction_part: str, response_part: str) -> Trainer:
    """Have a trainer supervise what follows each `response_part`, up to the next `instruction_part`.

    For templates whose answers cannot be told from the template itself; where they can, that is done already. The rows
    are read again, and the same trainer is returned. Raises ValueError when no row has a `response_part`.

        >>> asks, answers = "<|im_start|>user\\n", "<|im_start|>assistant\\n"
        >>> trainer = train_on_responses_only(trainer, instruction_part=asks, response_part=answers)
    """
    options = replace(trainer.datasets.options, response_markers=(instruction_part, response_part))
    trainer.prepare(replace(trainer.datasets, options=options))
    return trainer
