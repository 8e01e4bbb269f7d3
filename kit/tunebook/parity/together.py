"""Reports of single stages, made by machines that knew nothing of each other, become one.

A folder of the files `Report.to_json` writes comes in; one `Report` goes out, and the stages of which no file tells.
"""

import json
from pathlib import Path
from typing import Any

from .chain import chain_of
from .finding import Finding
from .report import Report


def together(folder: Path | str) -> tuple[Report, list[str]]:
    """(all findings, in the order of the chain; the stages of the chain that are in no file).

    Raises FileNotFoundError where there is no report, and ValueError where two tell of different models or objectives.
    """
    files = sorted(Path(folder).glob("*.json"))
    if not files:
        raise FileNotFoundError(f"There is no report in {folder}: no file there ends in .json.")
    documents = [json.loads(file.read_text(encoding="utf-8")) for file in files]
    told = {(document["model"], document["procedure"], document["objective"]) for document in documents}
    if len(told) > 1:
        runs = sorted(
            f"{procedure}{f' by {objective}' if objective else ''} on {model}" for model, procedure, objective in told
        )
        raise ValueError(f"The reports in {folder} are of different runs: {', '.join(runs)}. Give those of one alone.")
    [(model, procedure, objective)] = told
    chain = list(chain_of(objective))
    findings = [_finding(entry) for document in documents for entry in document["findings"]]
    seconds = {stage: took for document in documents for stage, took in document["seconds"].items()}
    report = Report(
        model=model,
        procedure=procedure,
        objective=objective,
        findings=tuple(sorted(findings, key=lambda finding: chain.index(finding.stage))),
        seconds={stage: seconds[stage] for stage in chain if stage in seconds},
        versions={name: version for document in documents for name, version in document["versions"].items()},
    )
    return report, [stage for stage in chain if stage not in seconds]


def _finding(entry: dict[str, Any]) -> Finding:
    """A number that is not finite stands in the file as a string; the verdict follows from the numbers."""
    fields: dict[str, Any] = {name: value for name, value in entry.items() if name != "verdict"}
    fields["measured"] = None if entry["measured"] is None else float(entry["measured"])
    return Finding(**fields)
