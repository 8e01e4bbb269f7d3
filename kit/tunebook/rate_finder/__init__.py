"""Which learning rate to train with: a short trial at rising rates, after which everything is as it was before.

What a run begins with comes in (`jobs.work.Work`), a `RateFound` goes out: a rate, the reason for it and a picture.
`trial.py` takes the steps, `found.py` reads the losses and knows no model, `picture.py` draws them.

Doors: `trial`, `found`.
"""
