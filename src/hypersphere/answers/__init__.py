"""Answers on the command line: where a number comes from, how two differ, what holds, what ails."""
