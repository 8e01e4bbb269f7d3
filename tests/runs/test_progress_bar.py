"""The bar of a run where nobody else is watching: what goes before the first step has one of its own below it."""

from types import SimpleNamespace

from tests.makers.tiny import tiny_model_folder
from tests.train.whole_runs.test_preferences import PAIRS
from tunebook import FastModel, Trainer, TrainingConfig
from tunebook.objectives import DPO
from tunebook.runs import progress_bar


def test_asking_the_reference_beforehand_has_a_bar_that_goes_when_it_is_done(tmp_path, monkeypatch):
    bars = []

    def bar(items, what, total):
        def update(more):
            made.n += more

        made = SimpleNamespace(what=what, total=total, n=0, is_closed=False, update=update)
        made.close = lambda: setattr(made, "is_closed", True)
        bars.append(made)
        return made

    monkeypatch.setenv("TUNEBOOK_CACHE", str(tmp_path / "cache"))
    monkeypatch.setattr(progress_bar, "progress", bar)
    model, _ = FastModel.from_pretrained(tiny_model_folder(tmp_path / "model"), max_seq_length=128)
    FastModel.get_peft_model(model, r=2)
    config = TrainingConfig(max_steps=1, per_device_train_batch_size=2, hold_out=0.25, output_dir=None)
    trainer = Trainer(model, train_dataset=PAIRS, args=config, objective=DPO(precompute_ref_log_probs=True))
    trainer.train()
    assert [(made.what, made.n, made.total) for made in bars] == [
        ("Asking the reference", 2, 2),
        ("Asking the reference", 4, 4),
    ]
    assert all(made.is_closed for made in bars)
