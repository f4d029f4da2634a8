"""Do two lists of numbers stand in the same order?"""

from __future__ import annotations

import numpy as np


def rank_correlation(a: np.ndarray, b: np.ndarray) -> float:
    """Spearman's rank correlation of two arrays of one shape (n,): 1 for the same order, -1 for the
    reverse, nan where one of them is constant."""
    # Here and not above: scipy.stats takes a second to load, and who plans runs needs none of it.
    from scipy.stats import spearmanr

    if min(len(np.unique(a)), len(np.unique(b))) < 2:
        return float("nan")
    return float(spearmanr(a, b).statistic)
