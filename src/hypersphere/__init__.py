"""hypersphere: five papers on hyperspherical embeddings, reproduced number by number."""

__version__ = "0.1.0"
