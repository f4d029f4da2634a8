"""The run store: records, run folders, and one owner per run."""

from hypersphere.store.records import SCHEMA, read_lines, write_lines
from hypersphere.store.store import EMBEDDINGS, MODEL, Store, TakenError

__all__ = ["EMBEDDINGS", "MODEL", "SCHEMA", "Store", "TakenError", "read_lines", "write_lines"]
