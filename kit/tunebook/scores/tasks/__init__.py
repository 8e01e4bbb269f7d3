"""Tasks of lm-eval and whom they are put to: `lm_eval_model.py` is what lm-eval asks, `respondents.py` who replies."""
