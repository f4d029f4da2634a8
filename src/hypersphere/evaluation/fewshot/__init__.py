"""Few-shot, open-set and retrieval measures of any embeddings: arrays in, numbers out.

They need no run, no head and no configuration, so people use them on embeddings of their own.
"""

from hypersphere.evaluation.fewshot.episodes import Episodes, episodes
from hypersphere.evaluation.fewshot.few_shot import FewShot, evaluate
from hypersphere.evaluation.fewshot.open_set import open_set, open_set_scores
from hypersphere.evaluation.fewshot.retrieval import retrieval

__all__ = [
    "Episodes",
    "FewShot",
    "episodes",
    "evaluate",
    "open_set",
    "open_set_scores",
    "retrieval",
]
