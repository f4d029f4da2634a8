"""What a run starts from: pretrained weights, or a finished run and new class vectors beside it."""

from __future__ import annotations

from pathlib import Path

import torch
from safetensors.torch import load_file
from torch.nn import functional as F

from hypersphere.config import Training, check_training
from hypersphere.errors import UserError
from hypersphere.evaluation.embeddings import Embeddings
from hypersphere.files import sha256_of
from hypersphere.store import EMBEDDINGS, MODEL, Store
from hypersphere.training.images import chosen_images
from hypersphere.training.network import Network
from hypersphere.training.resume import Say

VECTORS, SCALE = "head.class_vectors", "head.scale"


def start_from(network: Network, training: Training, store: Store, say: Say) -> str:
    """Take over the parent's weights; a head of another shape keeps its own new class vectors. With
    classes of few images, the class vectors of the classes that the parent knows are its own, of
    unit length, and the others start as the configuration says; of scales per class likewise, where
    the others start from the mean. Returns the sha256 of the weights' file: of a parent that was
    trained again on another processor it is not that of its record."""
    parent = training.parent
    assert parent is not None
    file = store.folder(parent) / MODEL
    record = store.get(parent)
    if record is None and not file.exists():
        raise UserError(f"initial={parent}: there is no such finished run under {store.runs}")
    needed = [file] if training.settings.new_classes == "random" else [file, _embeddings(file)]
    if not all(path.exists() for path in needed):
        assert record is not None
        from hypersphere.training.train import train  # which starts runs from here

        train(check_training(record["config"]), store, need_files=True, say=say)
    weights, own = load_file(file), network.state_dict()
    fitting = {k: v for k, v in weights.items() if k in own and own[k].shape == v.shape}
    lacking = [k for k in own if k not in fitting and not k.startswith("head.")]
    if lacking:
        raise UserError(f"initial={parent}: its backbone does not fit this one ({lacking[0]})")
    few = training.split().few
    if few:
        for name in (VECTORS, SCALE):  # of equally many other classes they may be
            if name in fitting and fitting[name].ndim:
                del fitting[name]
    network.load_state_dict(fitting, strict=False)
    network.inherited = set(fitting)
    if few:
        _start_classes(network, training, weights, store)
    return sha256_of(file)


def _start_classes(
    network: Network, training: Training, weights: dict[str, torch.Tensor], store: Store
) -> None:
    """Class vectors of a tuning with classes of few images: the parent's, then new ones."""
    head, split, parent = network.head, training.split(), str(training.parent)
    if (record := store.get(parent)) is None:
        raise UserError(f"initial={parent}: has no record, which says what its classes are")
    if head.not_imprintable:
        raise UserError(
            f"initial={parent}: head={training.components['head'].name} {head.not_imprintable}: its"
            " class vectors cannot be taken over"
        )
    known = check_training(record["config"]).split().seen
    seen, theirs = torch.tensor(split.seen), torch.tensor(known)
    old = torch.isin(seen, theirs)
    vectors = F.normalize(head.class_vectors.detach(), dim=1)
    vectors[old] = F.normalize(weights[VECTORS][torch.searchsorted(theirs, seen[old])], dim=1)
    if training.settings.new_classes == "imprinted":
        found = Embeddings.read(_embeddings(store.folder(parent) / MODEL))
        chosen, _ = chosen_images(training, found.train_labels)
        chosen = chosen[torch.isin(found.train_labels[chosen], seen[~old])]
        z, labels = found.train[chosen], found.train_labels[chosen]
        vectors[~old] = head.infer(z, labels, seen[~old], True)
        network.inherited.add(VECTORS)
    with torch.no_grad():
        head.class_vectors.copy_(vectors)
        own, scales = network.state_dict().get(SCALE), weights.get(SCALE)
        if own is not None and own.ndim and scales is not None:  # one for each class
            head.scale.fill_(scales.mean())  # as of a class that is imprinted
            if scales.ndim:
                head.scale[old] = scales[torch.searchsorted(theirs, seen[old])]
            network.inherited.add(SCALE)


def _embeddings(model: Path) -> Path:
    return model.with_name(EMBEDDINGS)
