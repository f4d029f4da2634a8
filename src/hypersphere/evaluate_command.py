"""`hypersphere evaluate`: few-shot, open-set and retrieval numbers of embeddings in files."""

from __future__ import annotations

import argparse
import json
from pathlib import Path
from typing import TYPE_CHECKING, Any

from hypersphere.errors import UserError, did_you_mean

if TYPE_CHECKING:
    import numpy as np

    from hypersphere.evaluation.fewshot import Episodes, FewShot

EXAMPLES = """files:
  .npy: embeddings (n, dim), with --labels for their classes (n,), integers or texts
  .safetensors: tensors `embeddings` and `labels`, and if you like `test`, `test_labels` (what is
  classified) and `base_vectors`; or a run's own embeddings.safetensors

examples:
  hypersphere evaluate z.npy --labels y.npy                     every class is new; half is tested
  hypersphere evaluate z.npy --labels y.npy --base 0-99         the other classes are new
  hypersphere evaluate z.safetensors --base 0-99 --novel 100-199 --shots 1,5 --draws 20
  hypersphere evaluate z.safetensors --novel 64-99 --ways 5     5-way episodes, 95 % interval
  hypersphere evaluate runs/0123456789ab/embeddings.safetensors --base 0-24 --json
"""

KEYS = ("embeddings", "labels", "test", "test_labels", "base_vectors")
OUR_KEYS = {"train": "embeddings", "train_labels": "labels"}  # in a run's folder


def add_parser(commands: Any) -> None:
    """Add the command `evaluate` to the parser's subcommands."""
    text = "few-shot accuracy, open-set scores and retrieval of embeddings in files"
    parser = commands.add_parser(
        "evaluate",
        help=text,
        description=f"{text[0].upper()}{text[1:]}: classes are told by the largest cosine to the"
        " mean of a few random examples each. Draws are nested and depend on labels and seed"
        " alone.",
        epilog=EXAMPLES,
        formatter_class=argparse.RawDescriptionHelpFormatter,
    )
    parser.set_defaults(command=_evaluate)
    parser.add_argument("file", type=Path, help=".npy or .safetensors")
    parser.add_argument("--labels", type=Path, help=".npy of the classes of a .npy's embeddings")
    parser.add_argument("--test", type=Path, help=".npy of the embeddings to classify")
    parser.add_argument("--test-labels", type=Path, help=".npy of their classes")
    parser.add_argument(
        "--test-share", type=float, default=0.5, help="held out of each class without --test (0.5)"
    )
    parser.add_argument("--base", default="", help="known classes: 0-99,120 or names (none)")
    parser.add_argument("--novel", default="", help="new classes (all that are not base)")
    parser.add_argument("--shots", default="1,5", help="examples per new class (1,5)")
    parser.add_argument("--draws", type=int, default=5, help="of the examples (5)")
    parser.add_argument("--seed", type=int, default=0, help="of the draws (0)")
    parser.add_argument(
        "--rule", choices=("mean", "nearest"), default="mean", help="of the examples (mean)"
    )
    parser.add_argument("--base-vectors", type=Path, help=".npy of a classifier's base vectors")
    parser.add_argument("--ways", type=int, help="also random episodes of so many new classes")
    parser.add_argument("--queries", type=int, default=15, help="per class and episode (15)")
    parser.add_argument("--episodes", type=int, default=600, help="per number of shots (600)")
    parser.add_argument("--json", action="store_true", help="for programs")


def _evaluate(options: argparse.Namespace) -> None:
    import numpy as np

    from hypersphere.evaluation.fewshot import episodes, evaluate, open_set, retrieval

    given = _read(options)
    shots = _numbers(options.shots, "--shots")
    base = _classes(options.base, given["labels"], "--base")
    novel = _classes(options.novel, given["labels"], "--novel")
    if not novel:
        novel = [c for c in np.unique(given["labels"]).tolist() if c not in set(base)]
    chosen = {"test_share": options.test_share, "seed": options.seed}
    found: dict[str, Any] = {"base": base, "novel": novel}
    try:
        few = evaluate(
            **given, base=base, novel=novel, shots=shots, draws=options.draws, rule=options.rule,
            **chosen,
        )  # fmt: skip
        found["few_shot"] = few.summary()
        if base:
            found["open_set"] = open_set(**given, base=base, novel=novel, **chosen)
        images = ("test", "test_labels") if "test" in given else ("embeddings", "labels")
        pool, pool_labels = (given[name] for name in images)
        of_novel = np.isin(pool_labels, novel)
        try:
            found["retrieval"] = retrieval(pool[of_novel], pool_labels[of_novel])
        except ValueError as error:  # one image of each class: the other measures are there
            found["retrieval"] = None
            found["no_retrieval"] = str(error)
        played = {
            n: episodes(
                pool, pool_labels, novel, ways=options.ways, shots=n, queries=options.queries,
                number=options.episodes, seed=options.seed,
            )
            for n in (shots if options.ways else ())
        }  # fmt: skip
    except ValueError as error:  # what the function's docstring says it needs
        raise UserError(f"{options.file}: {error}") from None
    if options.ways:
        found["episodes"] = {
            str(n): {"ways": options.ways, "mean": e.mean, "interval": e.interval}
            for n, e in played.items()
        }
    print(json.dumps(found, indent=2) if options.json else _text(found, few, played, options))


def _text(
    found: dict[str, Any], few: FewShot, played: dict[int, Episodes], options: argparse.Namespace
) -> str:
    spread = f", mean and deviation of {options.draws} draws" if options.draws > 1 else ""
    lines = [
        f"{len(found['base'])} base and {len(found['novel'])} new classes; accuracy by number of"
        f" examples per new class{spread}",
        f"{'':<20}" + "".join(f"{n:>16}" for n in few.shots),
    ]
    for name in few.values:
        cells = zip(few.mean(name), few.std(name), strict=True)
        text = [f"{m:.4f}" if s != s else f"{m:.4f} ± {s:.4f}" for m, s in cells]
        lines.append(f"{name:<20}" + "".join(f"{cell:>16}" for cell in text))
    for n, e in played.items():
        name = f"{options.ways}-way {n}-shot"
        lines.append(f"{name:<20}{f'{e.mean:.4f} ± {e.interval:.4f}':>16}  (95 % interval)")
    if "open_set" in found:
        lines.append("\nnew classes as unknown ones, by the largest cosine to a base class")
        lines += [f"{name:<20}{value:>16.4f}" for name, value in found["open_set"].items()]
    lines.append("\nretrieval among the images of new classes")
    if found["retrieval"] is None:
        lines.append(f"none: {found['no_retrieval']}")
    for name, value in (found["retrieval"] or {}).items():
        whole = name in ("queries", "without_match")
        lines.append(f"{name:<20}{value:>16,.0f}" if whole else f"{name:<20}{value:>16.4f}")
    return "\n".join(lines)


# What the options name


def _read(options: argparse.Namespace) -> dict[str, Any]:
    """The arrays that the options name, by argument of `evaluate`."""
    named = {
        "labels": options.labels, "test": options.test, "test_labels": options.test_labels,
        "base_vectors": options.base_vectors,
    }  # fmt: skip
    if options.file.suffix == ".safetensors":
        found = _tensors(options.file)
    else:
        found = {"embeddings": _array(options.file)}
    found |= {name: _array(path) for name, path in named.items() if path is not None}
    if "labels" not in found:
        raise UserError(f"{options.file}: its classes are missing: --labels LABELS.npy")
    return found


def _tensors(path: Path) -> dict[str, Any]:
    from safetensors.torch import load_file

    try:
        tensors = load_file(path)
    except FileNotFoundError:
        raise UserError(f"{path}: there is no such file") from None
    except Exception as error:  # safetensors has an exception of its own for a damaged file
        raise UserError(f"{path}: cannot be read as safetensors ({error})") from None
    found = {OUR_KEYS.get(name, name): value for name, value in tensors.items()}
    if "embeddings" not in found:
        held = ", ".join(tensors) or "nothing"
        raise UserError(f"{path}: has no tensor `embeddings` (nor `train`) but {held}")
    # float32 before NumPy: it has no bfloat16
    return {
        name: (value.float() if value.is_floating_point() else value).numpy()
        for name, value in found.items()
        if name in KEYS
    }


def _array(path: Path) -> np.ndarray:
    import numpy as np

    if path.suffix != ".npy":
        raise UserError(f"{path}: needs a .npy file (or one .safetensors with everything)")
    try:
        return np.load(path, allow_pickle=False)
    except FileNotFoundError:
        raise UserError(f"{path}: there is no such file") from None
    except (OSError, ValueError, EOFError) as error:
        raise UserError(f"{path}: cannot be read as .npy ({error})") from None


def _classes(text: str, labels: np.ndarray, option: str) -> list[Any]:
    """Classes by number (`0-99,120`), or by name where the labels are texts."""
    import numpy as np

    known = np.unique(labels).tolist()
    words = [word.strip() for word in text.split(",") if word.strip()]
    if labels.dtype.kind not in "iu":
        for word in words:
            if word not in known:
                raise UserError(f"{option} {word}: no such class{did_you_mean(word, known)}")
        return words
    found: list[int] = []
    for word in words:
        first, _, last = word.partition("-")
        if not (first.isdigit() and (last or first).isdigit()) or int(last or first) < int(first):
            raise UserError(f"{option} {word}: needs a class or a range such as 0-99")
        found += range(int(first), int(last or first) + 1)
    return found


def _numbers(text: str, option: str) -> list[int]:
    words = [word.strip() for word in text.split(",")]
    if not all(word.isdigit() for word in words):
        raise UserError(f"{option} {text}: needs whole numbers such as 1,5,20")
    return [int(word) for word in words]
