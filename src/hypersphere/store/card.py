"""The model card of an exported run: what it is, what it was trained on, its numbers."""

from __future__ import annotations

import json
from statistics import fmean, stdev
from typing import TYPE_CHECKING, Any

from hypersphere.store.records import Record

if TYPE_CHECKING:
    from hypersphere.config import Component, Training

MOST = 24  # numbers of one evaluation that the card shows; config.json has all


def model_card(record: Record, training: Training, config: dict[str, Any]) -> str:
    """Markdown, with the front matter that model hubs read. config: of the export."""
    from hypersphere.config.data import describe

    facts, head = training.dataset, training.components["head"]
    shape = config["input"]
    size = f"{shape['channels']} x {shape['size']} x {shape['size']}"
    use = f"logits = model(images)  # (n, {size}) uint8 -> (n, {config['num_classes']})"
    if not getattr(head.target, "classifies", False):
        use = f"embeddings = model.embed(images)  # (n, {size}) uint8 -> (n, dimensions)"
    parts = [
        "---",
        "library_name: hypersphere",
        "tags: [metric-learning, hyperspherical-embeddings, image-classification]",
        f"datasets: [{training.data.name}]",
        "---",
        "",
        f"# {training.components['backbone'].name} with head {head.name}, {training.data.name}",
        "",
        "```python",
        "import hypersphere",
        "",
        'model = hypersphere.load_model("FOLDER")  # this folder',
        use,
        "```",
        "",
        "## Network",
        "",
        *(f"- {name}: {_said(training.components[name])}" for name in ("backbone", "head")),
        f"- classes: {config['num_classes']} of the {facts.num_classes} of the dataset"
        f" (`model.classes`, `model.labels`)",
        "",
        "## Training",
        "",
        f"- data: {facts.title}. {describe(training.data, facts)}",
        *([f"- licence of the data: {facts.licence}"] if facts.licence else []),
        f"- citation of the data: {facts.citation}",
        f"- content of the data: `{record['data']['content']}`",
        *(
            f"- {name}: {_said(training.components[name])}"
            for name in ("split", "batches", "optimizer", "schedule")
        ),
        f"- seed {training.settings.seed}, precision {training.settings.precision}, weights of"
        f" {_chosen(training.settings.select)}",
        *([f"- started from run `{record['parent']}`"] if record["parent"] else []),
        *(
            ["- the training diverged: its loss is no finite number"]
            if record.get("diverged")
            else []
        ),
        "",
        "## Numbers",
        "",
        "As the run's records hold them, under the protocol above; fractions unless said otherwise."
        " Of a number with several draws: mean, standard deviation and how many.",
        "",
        "| from | number | value |",
        "| --- | --- | --- |",
        *_rows(config["numbers"]),
        "",
        "## Provenance",
        "",
        f"- run `{record['run_id']}`, finished {record['finished']} after {record['seconds']} s",
        f"- commit {record['git']['commit']}"
        + (" with uncommitted changes" if record["git"]["dirty"] else ""),
        f"- versions: {', '.join(f'{k} {v}' for k, v in record['versions'].items())}",
        f"- hardware: {record['hardware']['processor']}, {record['hardware']['device']}",
        f"- sha256 of model.safetensors: `{config['sha256']}`",
    ]
    return "\n".join(parts) + "\n"


def _said(component: Component) -> str:
    stated = ", ".join(f"{key} {json.dumps(value)}" for key, value in component.stated().items())
    return component.name + (f" ({stated})" if stated else "")


def _chosen(select: str) -> str:
    return (
        "the last epoch" if select == "last" else f"the epoch with the {select.replace('_', ' ')}"
    )


def _rows(numbers: dict[str, dict[str, Any]]) -> list[str]:
    rows = []
    for source, found in numbers.items():
        for name, value in list(found.items())[:MOST]:
            rows.append(f"| {source} | {name} | {_value(value)} |")
        if len(found) > MOST:
            rows.append(f"| {source} | {len(found) - MOST} more | see config.json |")
    return rows


def _value(value: Any) -> str:
    if not isinstance(value, list):
        return f"{float(value):.4f}"
    draws = [float(each) for each in value]
    if len(draws) < 2:
        return f"{draws[0]:.4f}" if draws else ""
    return f"{fmean(draws):.4f} ± {stdev(draws):.4f} (n = {len(draws)})"
