"""Train without a word, and read what a run left behind."""

import torch
from safetensors.torch import load_file

from hypersphere.store import EMBEDDINGS, MODEL
from hypersphere.training.train import train


def quietly(training, store, **options):
    return train(training, store, say=lambda line: None, **options)


def weights(training, store, name=MODEL):
    return load_file(store.folder(training.id) / name)


def equal(a, b):
    return a.keys() == b.keys() and all(torch.equal(a[k], b[k]) for k in a)


def lose_files(training, store):
    for name in (MODEL, EMBEDDINGS):
        (store.folder(training.id) / name).unlink()
