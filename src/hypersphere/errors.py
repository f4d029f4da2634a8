"""The one exception a user is meant to read."""

from __future__ import annotations

import difflib
from collections.abc import Iterable


class UserError(Exception):
    """Something the user can mend: one readable line that names the thing and the remedy."""


class ContradictedError(UserError):
    """A finished run, trained again because its files were gone, did not give its record's numbers:
    whatever rests on it would meet the same again."""

    def __init__(self, run_id: str, text: str) -> None:
        super().__init__(text)
        self.run_id = run_id


def did_you_mean(word: str, known: Iterable[str]) -> str:
    """`"; did you mean 'x'?"` for the known word nearest to `word`, or an empty string."""
    near = difflib.get_close_matches(word, list(known), n=1, cutoff=0.5)
    return f"; did you mean '{near[0]}'?" if near else ""
