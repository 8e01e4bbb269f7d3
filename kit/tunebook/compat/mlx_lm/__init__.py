"""A config of `mlx_lm.lora` in, a trainer of this kit out: `trainer_from("config.yaml")`.

    python -m tunebook.compat.mlx_lm config.yaml JOB

writes the run as a job, for `python -m tunebook train JOB`. Every key of mlx-lm 0.32 is followed, told of once where
nothing depends on it here, or refused with what to write. The keys are read in `config_file.py`, put into this kit's
terms in `settings.py` (the run), `optimizers.py` and `schedules.py`, and `rows.py` reads the folder of the data.
"""

from .trainers import opened, trainer_from

__all__ = ["opened", "trainer_from"]
