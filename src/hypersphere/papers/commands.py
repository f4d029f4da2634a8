"""From a node of the run graph to the command lines that make it, on any machine."""

from __future__ import annotations

import shlex

from hypersphere.config import Evaluation, Node, Training


def commands(node: Node, preset: str, paper: str, item: str) -> list[str]:
    """The commands that make a node of an item, in their order: the training it starts from, then
    its own training, which is judged at once; of a computation, the item's."""
    training = node.training if isinstance(node, Evaluation) else node
    if not isinstance(training, Training) or not training.words:
        return [f"hypersphere run --preset {preset} --paper {paper} --item {item}"]
    trainings = [training.base, training] if training.base else [training]
    return [command(each) for each in trainings if each.words]


def command(training: Training) -> str:
    """The command that makes a planned training, once the run that it starts from is there."""
    return shlex.join(["python", "scripts/train.py", *training.words])
