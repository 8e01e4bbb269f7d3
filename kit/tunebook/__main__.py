"""The shell's way in: `python -m tunebook doctor | fetch NAME | demo`. Each command calls one function of the kit."""

import argparse
import sys


def main(arguments: list[str] | None = None) -> int:
    """Run one command; the exit code is 0 when it did what was asked."""
    parser = argparse.ArgumentParser(prog="python -m tunebook", description="Fine-tune language models with MLX.")
    commands = parser.add_subparsers(required=True, metavar="COMMAND")

    check = commands.add_parser(
        "doctor", help="check this machine and environment; exit code 1 when something is broken"
    )
    check.add_argument(
        "--gpu", action="store_true", help="time training here and with mlx-lm; a report to send, as JSON"
    )
    check.set_defaults(run=lambda given: _doctor(given.gpu))

    get = commands.add_parser("fetch", help="get a model, and print where it is and where it came from")
    get.add_argument("name", help="a hub id, a folder or a .gguf file")
    get.add_argument("--revision", help="a branch, tag or commit of the hub's repository")
    get.set_defaults(run=lambda given: _fetch(given.name, given.revision))

    show = commands.add_parser("demo", help="train a small model from data to a file, and show what came of it")
    show.set_defaults(run=lambda _: _demo())

    given = parser.parse_args(arguments)
    return given.run(given)


# Each command imports what it needs when it runs: `doctor` must answer where MLX cannot even be loaded.


def _doctor(gpu: bool) -> int:
    from .check_up import doctor

    if gpu:
        report = doctor(gpu=True)
        print(report, file=sys.stderr)
        print(report.json(), end="")
        return 0
    diagnosis = doctor()
    print(diagnosis)
    return 0 if diagnosis.works else 1


def _fetch(name: str, revision: str | None) -> int:
    from .models.fetch import ModelNotFound, fetch

    try:
        fetched = fetch(name, revision=revision)
    except ModelNotFound as error:
        print(error, file=sys.stderr)
        return 1
    print(fetched.path)
    print(fetched.source)
    return 0


def _demo() -> int:
    from .demo import demo

    demo()
    return 0


if __name__ == "__main__":
    sys.exit(main())
