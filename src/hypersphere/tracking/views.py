"""Saved views of a W&B project: per paper its runs, and per item panels with its numbers."""

from __future__ import annotations

from collections.abc import Iterable
from typing import TYPE_CHECKING, Any

from hypersphere.errors import UserError
from hypersphere.papers.planned import Plan, PlannedItem
from hypersphere.store import Store
from hypersphere.tracking.mirrored import complete

if TYPE_CHECKING:
    from wandb_workspaces.workspaces import Workspace

CURVES = ("test_accuracy", "loss")
PICTURES = ["embeddings", "class_vectors"]
PANELS = 12  # of one item: beyond that a view is searched, not looked at


def views(plan: Plan, store: Store, entity: str, project: str) -> Iterable[Workspace]:
    """One saved view for each paper of the plan, not saved yet (`save()` needs a key and a
    network).

    Its runs are those tagged with the paper's items, grouped by data and head, so that seeds and
    splits show as one line with its spread. A section per item with bars of the numbers that its
    cells show (of finished runs; all that are planned where none is).

    Raises UserError without the package wandb-workspaces.
    """
    ws, wr = _library()
    papers: dict[str, list[PlannedItem]] = {}
    for item in plan.items:
        papers.setdefault(item.paper.key, []).append(item)
    there = {key for run in complete(plan, store) for key in run.summary}
    for key, items in papers.items():
        about = items[0].paper.about
        curves = [
            wr.LinePlot(title=name, x="Step", y=[name], groupby_aggfunc="mean",
                        groupby_rangefunc="stddev")
            for name in CURVES
        ]  # fmt: skip
        sections = [
            ws.Section(name="Curves", panels=curves, is_open=True),
            ws.Section(
                name="Embeddings and class vectors",
                panels=[wr.MediaBrowser(media_keys=PICTURES)],
                is_open=True,
            ),
            *(
                ws.Section(name=f"{item.spec.name}: {item.spec.title}", panels=panels)
                for item in items
                if (panels := _panels(wr, item, there))
            ),
        ]
        yield ws.Workspace(
            entity=entity,
            project=project,
            name=f"{key}, {items[0].preset}: {about.title}",
            sections=sections,
            runset_settings=ws.RunsetSettings(
                filters=ws.And(ws.Tags("tags").isin([f"{key}/{item.spec.name}" for item in items])),
                groupby=[ws.Config("data.name"), ws.Config("head.name")],
            ),
        )


def _panels(wr: Any, item: PlannedItem, there: set[str]) -> list[Any]:
    """Bars of the numbers that an item's cells show, by the name that the mirror gives them."""
    shown = dict.fromkeys(name for cell in item.cells for name in cell.metrics.values() if name)
    names = [name for name in shown if name in there] or list(shown)
    return [wr.BarPlot(title=name, metrics=[name]) for name in names[:PANELS]]


def _library() -> tuple[Any, Any]:
    try:
        import wandb_workspaces.reports.v2 as wr
        import wandb_workspaces.workspaces as ws
    except ImportError:
        raise UserError(
            "saved views need the package wandb-workspaces: pip install wandb-workspaces"
        ) from None
    return ws, wr
