"""`python -m tunebook.compat.mlx_lm config.yaml JOB`: a config of `mlx_lm.lora` as a job."""

import argparse
import sys

from .trainers import trainer_from


def main(arguments: list[str] | None = None) -> int:
    """Write the job; the exit code is 0 when it is there, 2 when the config cannot be followed."""
    parser = argparse.ArgumentParser(prog="python -m tunebook.compat.mlx_lm", description=__doc__)
    parser.add_argument("config", help="a YAML file as `mlx_lm.lora --config` takes it")
    parser.add_argument("job", help="the folder that is made, for `python -m tunebook train JOB`")
    given = parser.parse_args(arguments)
    try:
        folder = trainer_from(given.config).save_job(given.job)
    except (ValueError, TypeError, OSError) as error:
        print(error, file=sys.stderr)
        return 2
    print(f"{folder} holds the job; python -m tunebook train {folder} trains it.")
    return 0


if __name__ == "__main__":
    sys.exit(main())
