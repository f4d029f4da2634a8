"""Nodes as plain JSON: what was submitted is trained, whatever the YAML says by then."""

from __future__ import annotations

import sys
from collections.abc import Callable, Iterable, Sequence
from functools import cache
from typing import Any

from hypersphere.config import Component, Computation, Evaluation, Node, Training, check_training
from hypersphere.config.components import check
from hypersphere.errors import UserError


def freeze(node: Node) -> dict[str, Any]:
    """The node with its resolved configuration and its id, in values that JSON has."""
    if isinstance(node, Training):
        return {"id": node.id, "kind": "training", "training": node.raw}
    frozen = {"id": node.id, "component": _component(node.component)}
    if isinstance(node, Evaluation):
        return frozen | {"kind": "evaluation", "training": node.training.raw}
    return frozen | {"kind": "computation"}


def thaw(frozen: dict[str, Any]) -> Node:
    """The node that `freeze` was given.

    Raises UserError when this code makes another run of it (a component's revision was raised, a
    default changed, or the file was edited): it would not be what was submitted.
    """
    node: Node
    if frozen["kind"] == "training":
        node = check_training(frozen["training"])
    else:
        component = check(frozen["component"], frozen["kind"])
        if frozen["kind"] == "evaluation":
            node = Evaluation(component, check_training(frozen["training"]))
        else:
            node = Computation(component)
    if node.id != frozen["id"]:
        raise UserError(
            f"run {frozen['id']}: by the code of now its configuration is that of run {node.id}, so"
            " it is not trained; submit it again (make plan shows what is missing)"
        )
    return node


def families(nodes: Sequence[Node]) -> list[list[Node]]:
    """`nodes` in groups that wait for nothing in each other: a training with what judges it and
    what starts from it. The order of nodes, parents before children, is kept."""
    group: dict[str, list[Node]] = {}
    found = []
    for node in nodes:
        family = group.get(node.parent or "")
        if family is None:
            found.append(family := [])
        family.append(node)
        group[node.id] = family
    return found


def batches(nodes: Sequence[Node], trainings: int) -> Iterable[list[Node]]:
    """Whole families together, up to `trainings` trainings (a larger family stays whole). What has
    no training takes milliseconds: 50 of those count as one."""
    batch: list[Node] = []
    weight = 0.0
    for family in families(nodes):
        heavy = sum(isinstance(node, Training) for node in family)
        more = heavy or len(family) / 50
        if batch and weight + more > trainings:
            yield batch
            batch, weight = [], 0.0
        batch, weight = batch + family, weight + more
    if batch:
        yield batch


def _component(component: Component) -> dict[str, Any]:
    return {"_target_": _path(component.target), "name": component.name, **component.params}


@cache
def _path(target: Callable[..., Any]) -> str:
    """The dotted path by which a configuration reaches `target`: the shortest that does, since a
    package may show a function by the name of its module. Raises UserError where none does."""
    parts = target.__module__.split(".")
    for end in range(1, len(parts) + 1):
        name = ".".join(parts[:end])
        if getattr(sys.modules.get(name), target.__qualname__, None) is target:
            return f"{name}.{target.__qualname__}"
    raise UserError(
        f"{target.__module__}.{target.__qualname__}: cannot be found by its name, so it cannot be"
        " handed to a job; define it at the top of its module"
    )
