"""From records to files: tables, claims, the page of a preset. Needs no data and no training."""

from __future__ import annotations

from collections.abc import Collection, Iterable, Sequence
from dataclasses import replace
from pathlib import Path

from hypersphere.config import Computation
from hypersphere.config.data import describe_all
from hypersphere.errors import UserError
from hypersphere.papers import choice, rendered
from hypersphere.papers.ablations import Sweep, begun, may_have_begun
from hypersphere.papers.commands import command
from hypersphere.papers.plan import make_plan, plan_of, value_of
from hypersphere.papers.planned import Plan, PlannedCell, PlannedItem, training_of
from hypersphere.papers.spec import (
    BesideSpec,
    ItemSpec,
    Paper,
    cell_keys,
    paper,
    paper_keys,
    published_rows,
)
from hypersphere.reporting import ablation_files, claims, derived, page, tables
from hypersphere.reporting.ablation import Ablation, with_those_beside
from hypersphere.reporting.cells import Beside, Cell, Item
from hypersphere.reporting.declared import ByKey
from hypersphere.reporting.drawing import draw
from hypersphere.reporting.kinds import Plot
from hypersphere.store import Store, artifacts, read_lines, write_lines
from hypersphere.store.records import Record


def collect(plan: Plan, store: Store, preset: str) -> int:
    """Bring `results/<preset>/records.jsonl` (and the artifacts beside it) up to date with the
    finished nodes of `plan`, and of the sweeps that its papers have begun; lines that are there
    already stay. Returns how many there are."""
    path = store.results / preset / "records.jsonl"
    records, _ = read_lines(path)
    records |= _finished(plan.nodes, store)
    for key, declared in {item.paper.key: item.paper for item in plan.items}.items():
        if not may_have_begun(declared, preset, store.results, records.keys() - plan.nodes.keys()):
            continue  # planning all of a paper takes seconds
        before = -1
        while len(records) > before:  # what one sweep brings may belong to another one too
            before = len(records)
            for each in begun_sweeps(make_plan(preset, [key]), store, preset, records):
                records |= _finished(each.nodes(), store)
    for run_id, record in records.items():
        target = store.results / preset / artifacts.FOLDER / run_id
        for source in _artifact_folders(store, run_id):
            artifacts.gather(source, target, record.get("artifacts", {}))
    write_lines(path, records.values())
    return len(records)


def _finished(ids: Iterable[str], store: Store) -> dict[str, Record]:
    found = {node_id: store.get(node_id) for node_id in ids}
    return {node_id: record for node_id, record in found.items() if record is not None}


def begun_sweeps(whole: Plan, store: Store, preset: str, records: Collection[str]) -> list[Sweep]:
    """The sweeps of a paper, all of whose items are in `whole`, that have results in the preset;
    `records` are ids of the preset's."""
    beside = {run_id for run_id in records if run_id not in whole.nodes}
    return begun(whole.items[0].paper, preset, store.results, beside) if whole.items else []


def ablations(begun: Iterable[Sweep], store: Store) -> list[Ablation]:
    """What the settings of sweeps do, as far as their runs are done."""
    found = []
    for sweep in begun:
        says = {name: _differs(sweep.item.spec, name) for name in sweep.settings}
        found.append(sweep.told(judged_items(sweep.item, store), says))
    return with_those_beside(found)


def render(plan: Plan, store: Store, preset: str) -> list[Path]:
    """Write the tables of the planned items, and the sweeps, claims and page of everything built,
    from the records that are collected (`collect`).

    Returns the paths of the tables' Markdown files.
    """
    store = store.collected()
    folder = store.results / preset
    wanted = {(planned.paper.key, planned.spec.name) for planned in plan.items}
    written, pictures = [], []
    items: list[Item] = []
    shown: list[tuple[Item, Path]] = []
    told: list[Ablation] = []
    rows = []
    commands: dict[str, str] = {}
    records, _ = read_lines(folder / "records.jsonl")
    for key in paper_keys():
        whole = make_plan(preset, [key])
        begun_here = begun_sweeps(whole, store, preset, records)
        found = ablations(begun_here, store)
        told += found
        pictures += [ablation_files.write(each, folder / ablation_files.FOLDER) for each in found]
        wanted |= {(key, each.item.name) for each in found}  # their notes name the sweeps
        built = [_with_sweeps(item, found) for item in _built(whole, store)]
        for item in built:
            if (key, item.name) not in wanted:
                continue
            written.append(tables.write(item, folder / "tables" / key)[1])
            if not item.variant:
                shown.append((item, folder / "figures" / key))
        items += built
        rows += judge_claims(paper(key), preset, built)
        everything = plan_of([*whole.items, *(each.item for each in begun_here)])
        commands |= {training.id: command(training) for training in everything.trainings()}
    pictures += draw(shown)
    board, report = folder / "claims.csv", folder / "index.html"
    claims.write_claims(rows, board)
    page.write_page(report, preset, items, rows, records, folder / "figures", commands, told)
    rendered.note(plan, store, preset, [*written, *pictures, board, report])
    return written


def _with_sweeps(item: Item, found: Sequence[Ablation]) -> Item:
    """The item with a note of where it is told why its cells differ."""
    files = [f"{each.stem}.md" for each in found if each.item.name == item.name]
    if item.variant or not files:
        return item
    where = f"{ablation_files.FOLDER}/{item.paper}"
    note = f"Why cells differ, factor by factor (hypersphere ablate): {where}/{', '.join(files)}."
    return replace(item, notes=(*item.notes, note))


def built_items(key: str, preset: str, store: Store) -> list[Item]:
    """Every table of a paper that has declarations, with its variants."""
    return _built(make_plan(preset, [key]), store)


def _built(plan: Plan, store: Store) -> list[Item]:
    return [item for each in plan.items for item in judged_items(each, store)]


def judge_claims(declared: Paper, preset: str, items: Sequence[Item]) -> list[dict[str, str]]:
    """The rows of claims.csv of one paper, decided on the tables that its claims.yaml names."""
    by_stem = {item.stem: item for item in items}
    published = published_rows(declared.key, "figure_claims")
    scope = declared.about.scope[preset]
    try:
        return claims.judge_claims(declared.key, preset, published, declared.claims, by_stem, scope)
    except ValueError as error:
        raise UserError(f"conf/paper/{declared.key}/claims.yaml: {error}") from None


def judged_items(planned: PlannedItem, store: Store) -> list[Item]:
    """The item and its variants with our numbers in their cells, primary first."""
    return [_item(planned, store, variant) for variant in ("", *planned.spec.variants)]


def _artifact_folders(store: Store, run_id: str) -> list[Path]:
    """Where a run's arrays may lie: where it ran, and with the results of any preset (presets share
    records, and those that are committed travel without their run folders)."""
    collected = sorted(store.results.glob(f"*/{artifacts.FOLDER}/{run_id}"))
    return [store.folder(run_id) / artifacts.FOLDER, *collected]


def _artifact(planned: PlannedItem, store: Store, run_id: str) -> Path:
    """The array that the item's picture draws: of these results, or if that item was not collected
    here yet from wherever it is."""
    own = store.results / planned.preset / artifacts.FOLDER / run_id
    file = f"{planned.spec.plot.artifact}.npz"
    places = [folder / file for folder in (own, *_artifact_folders(store, run_id))]
    return next((path for path in places if path.exists()), places[0])


def _item(whole: PlannedItem, store: Store, variant: str) -> Item:
    planned = whole.only(variant)
    spec, about = planned.spec, planned.paper.about
    unit = spec.varied(variant).unit if variant else spec.unit
    protocol = _protocol(planned, variant)
    notes = [f"Protocol: {protocol}. {_told(planned, variant)}"]
    if variant:
        notes.append(
            f"Variant {variant}: {_differs(spec, variant)}; the primary table is {spec.name}."
        )
    if spec.largest is not None:
        each = spec.largest.words.items()
        notes += [f"{value}: {derived.describe(how, spec.unit)}." for value, how in each]
    planned, chosen = _chosen(planned, store)
    notes += chosen + _images(planned)
    source = f"{about.title} ({about.citation})"
    notes.append(f"Paper: {source}.")
    return Item(
        paper=planned.paper.key,
        name=spec.name,
        title=spec.title,
        preset=planned.preset,
        unit=unit,
        margin=spec.margin,
        rows=tuple(spec.rows),
        columns=tuple(spec.columns),
        cells=tuple(_cell(planned, cell, store, variant) for cell in planned.cells),
        variant=variant,
        notes=tuple(notes),
        metric_label=spec.metric_label,
        data=tuple(sorted(planned.datasets)),
        plot=_named(spec.plot, planned),
        beside=tuple(
            _beside(planned, each)
            for each in spec.beside
            if not variant or variant in each.variants
        ),
        source=source,
    )


def _beside(planned: PlannedItem, spec: BesideSpec) -> Beside:
    """What others published of an item. Raises UserError where the file has no such rows."""
    where = {key: [str(value) for value in values] for key, values in spec.where.items()}
    rows = [(cell_keys(row), row) for row in published_rows(planned.paper.key, spec.file)]
    numbers = tuple(
        (keys, f"{row['value']}{f' ± {std}' if (std := row['std']) else ''}")
        for keys, row in rows
        if all(keys.get(key) in values for key, values in where.items())
    )
    if not numbers:
        raise UserError(f"{planned.spec.name}: beside: {spec.file}.csv has no row with {where}")
    return Beside(spec.title, numbers)


def _named(plot: Plot, planned: PlannedItem) -> Plot:
    """The plot with the names of the (first) dataset's classes where it asks for them."""
    if getattr(plot, "class_names", None) != "dataset":
        return plot
    facts = [training.dataset for training in planned.trainings[:1]]
    names = next((each.names or each.classes for each in facts), None) or ()
    return plot.model_copy(update={"class_names": names})


def _told(planned: PlannedItem, variant: str) -> str:
    """What is said of the protocol: a variant that has its own tells it in its note."""
    own = planned.spec.variants.get(variant)
    return f"{own.note}." if own and own.protocol else planned.settings.note


def _protocol(planned: PlannedItem, variant: str) -> str:
    own = planned.spec.variants.get(variant)
    return (own and own.protocol) or planned.settings.protocol


def _chosen(planned: PlannedItem, store: Store) -> tuple[PlannedItem, list[str]]:
    """The item with the best alternative of each cell that has some, where all are done, and a note
    of which."""
    selecting = {key: {cell.keys[key] for cell in planned.cells} for key in planned.spec.select}
    labels = [key for key, values in selecting.items() if len(values) > 1]
    found, cells, by = [], [], ""
    for cell in planned.cells:
        found_cell, chosen = settled(cell, store)
        cells.append(found_cell)
        if chosen is not None and len(cell.alternatives[""]) > 1:
            by = cell.chosen_by[""]
            found.append((" ".join(cell.keys[key] for key in labels), chosen))
    return replace(planned, cells=tuple(cells)), choice.describe(by, found, planned.spec.unit)


def settled(cell: PlannedCell, store: Store) -> tuple[PlannedCell, choice.Alternative | None]:
    """The cell with its best alternative alone, and that; or as it is."""
    if (among := cell.alternatives.get("")) is None:
        return cell, None
    if (chosen := choice.best(among, cell.chosen_by[""], store)) is None:
        return cell, None
    return replace(cell, nodes=chosen.nodes, alternatives={}), chosen


def _images(planned: PlannedItem) -> list[str]:
    """What of which images the networks saw, and on which classes they were trained."""
    trainings = planned.trainings
    data = describe_all((t.data, t.dataset) for t in trainings)
    splits: dict[str, dict[str, set[str]]] = {}
    for split in (t.components["split"] for t in trainings):
        values = splits.setdefault(split.name, {})
        for key, value in split.stated().items():
            values.setdefault(key, set()).add(str(value))
    said = [f"Images: {line}." for line in data]
    for name, values in sorted(splits.items()):
        params = "; ".join(f"{k} = {', '.join(sorted(v, key=_natural))}" for k, v in values.items())
        said.append(f"Classes: {name}{f' ({params})' if params else ''}.")
    return said


def _natural(text: str) -> tuple[int, str]:
    return (len(text), text)  # 2 before 10


def _differs(spec: ItemSpec, name: str) -> str:
    """What a variant has that the primary table has not."""
    variant = spec.variants[name]
    said = [f"{n} = {w if isinstance(w, str) else w.told()}" for n, w in variant.words.items()]
    for column, chosen in variant.select.items():
        if isinstance(chosen, str):
            said.append(f"{column} selects {chosen}")
            continue
        primary = spec.select.get(column, {})
        for text, overrides in chosen.items():
            known = {primary: text} if isinstance(primary, str) else primary.get(text, {})
            others = {k: v for k, v in overrides.items() if str(known.get(k)) != str(v)}
            said += [f"{text} {k} = {v}" for k, v in others.items()]
    said += [f"{key} = {value}" for key, value in variant.overrides.items()]
    note = "" if variant.protocol else variant.note  # which tells that protocol (_told)
    return ": ".join(filter(None, [note, ", ".join(said)]))


def _cell(planned: PlannedItem, cell: PlannedCell, store: Store, variant: str) -> Cell:
    """Our numbers of one cell by unit; runs that are not done are simply not there."""
    spec = planned.spec
    if spec.largest is not None and cell.sources:
        tables = {
            source.spec.name: [
                _cell(source, settled(each, store)[0], store, variant) for each in source.cells
            ]
            for source in cell.sources
        }
        printed = (cell.published, cell.published_std)
        try:
            return derived.largest(spec.largest.of(cell.keys), tables, cell.keys, printed)
        except ValueError as error:
            raise UserError(f"{spec.name}: largest: {error}") from None
    name = cell.metrics[""].partition("/")[2]
    scale = spec.scale.of(cell.keys) if isinstance(spec.scale, ByKey) else spec.scale
    values: dict[str, float] = {}
    holders: dict[str, str] = {}
    run_ids, arrays, done = [], {}, 0
    waiting = bool(cell.alternatives)  # for some to be done: nothing can be chosen yet
    # Several units of one run that has a number for each of its draws: each unit takes its own.
    one_for_all = len(cell.nodes) > 1 and len({node.id for node in cell.nodes.values()}) == 1
    for unit, node in () if waiting else cell.nodes.items():
        if (record := store.get(node.id)) is None:
            continue
        done += 1
        # Cells name the training behind a number: what a reader looks up is the run.
        run_ids.append(record["parent"] if record["kind"] == "evaluation" else record["run_id"])
        found = value_of(record, name, spec.unit, scale)
        if one_for_all and (own := f"/{unit}") in found:
            found = {"": found[own]}
        for suffix, value in found.items():
            values[f"{unit}{suffix}"] = value
            holders[f"{unit}{suffix}"] = record["run_id"]
        if (sha256 := record.get("artifacts", {}).get(spec.plot.artifact)) and not variant:
            arrays[unit] = artifacts.load(_artifact(planned, store, record["run_id"]), sha256)
    return Cell(
        keys=cell.keys,
        published=cell.published,
        published_std=cell.published_std,
        values=values,
        # draws per run are known once a run is there; before that the runs are counted
        planned=len(cell.nodes) * (len(values) // done if done else 1),
        run_ids=tuple(dict.fromkeys(run_ids)),  # units may share a run that knows no chance
        protocol=_protocol(planned, variant),
        records=holders,
        chance=not _without_chance(cell),
        bases=_bases(cell),
        arrays=arrays,
    )


def _bases(cell: PlannedCell) -> tuple[str, ...]:
    """The trainings behind a cell that started from no other run of ours."""
    found = filter(None, map(training_of, cell.nodes.values()))
    return tuple(dict.fromkeys(training.parent or training.id for training in found))


def _without_chance(cell: PlannedCell) -> bool:
    """Whether one computation gives the number for every unit."""
    nodes = [*cell.nodes.values()]
    same = len(nodes) > 1 and len({node.id for node in nodes}) == 1
    return same and isinstance(nodes[0], Computation)
