"""Preferences compared: pairs of answers, or answers with a label, read and learnt from here and by TRL under torch.

`parts.py` has the parts of such a run that `procedure.Procedure` exchanges, `run.py` puts them together, `faults.py`
has known ways for them to go wrong. Each of the other files is a probe: `reading.py` of token ids and of what counts as
an answer, `log_probs.py` of what the model and its reference say, `loss.py`, `gradients.py` and `curve.py`.
"""
