"""Tables, verdicts, claims and the page: pure functions of numbers that records gave; no torch."""
