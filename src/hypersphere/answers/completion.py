"""Tab completion: argcomplete runs the command itself, so papers, items and datasets are those of
this installation."""

from __future__ import annotations

import argparse
from collections.abc import Callable, Iterable
from typing import Any


def script(shell: str) -> str:
    """What `shell` has to read."""
    import argcomplete

    return argcomplete.shellcode(["hypersphere"], shell=shell)


def complete(parser: argparse.ArgumentParser) -> None:
    """Answer a shell that asks what may follow (and end the process); no other call gets here."""
    import argcomplete

    for inner in _parsers(parser):
        for action in inner._actions:
            if (choices := _CHOICES.get(action.dest)) and action.choices is None:
                action.completer = choices  # type: ignore[attr-defined]
    argcomplete.autocomplete(parser)


def _parsers(parser: argparse.ArgumentParser) -> Iterable[argparse.ArgumentParser]:
    yield parser
    for action in parser._actions:
        if isinstance(action, argparse._SubParsersAction):
            for inner in action.choices.values():
                yield from _parsers(inner)


def _papers(**_: Any) -> list[str]:
    from hypersphere.papers.spec import paper_keys

    return paper_keys()


def _presets(**_: Any) -> tuple[str, ...]:
    from hypersphere.papers.spec import PRESETS

    return PRESETS


def _items(parsed_args: argparse.Namespace, **_: Any) -> list[str]:
    from hypersphere.papers.spec import paper, paper_keys

    keys = [parsed_args.paper] if getattr(parsed_args, "paper", "") else paper_keys()
    return list(dict.fromkeys(name for key in keys for name in paper(key).items))


def _cells(parsed_args: argparse.Namespace, **_: Any) -> list[str]:
    from hypersphere.papers.plan import plan_item
    from hypersphere.papers.spec import paper

    declared = paper(parsed_args.paper)
    planned = plan_item(declared, declared.item(parsed_args.item), "quick")
    return list(dict.fromkeys(v for cell in planned.cells for v in cell.keys.values()))


def _factors(parsed_args: argparse.Namespace, **_: Any) -> list[str]:
    from hypersphere.papers.factors import factors
    from hypersphere.papers.spec import paper

    every = factors(paper(parsed_args.paper))
    return list(dict.fromkeys(each.name for each in every if parsed_args.item in each.items))


def _runs(**_: Any) -> list[str]:
    from hypersphere.store import Store

    return list(Store().records)


def _launchers(**_: Any) -> list[str]:
    from hypersphere import paths

    return ["local", *(f.stem for f in (paths.conf_dir() / "hydra" / "launcher").glob("*.yaml"))]


def _datasets(**_: Any) -> list[str]:
    from hypersphere.data.facts import DATASETS, resources

    return [*DATASETS, *resources()]


def _claim_verdicts(**_: Any) -> tuple[str, ...]:
    from hypersphere.reporting.verdicts import CLAIM_VERDICTS

    return CLAIM_VERDICTS


_CHOICES: dict[str, Callable[..., Iterable[str]]] = {
    "paper": _papers,
    "preset": _presets,
    "item": _items,
    "cell": _cells,
    "factor": _factors,
    "runs": _runs,
    "run": _runs,
    "launcher": _launchers,
    "names": _datasets,
    "verdict": _claim_verdicts,
}
