"""Handing a plan's nodes to joblib, SLURM or Ray, frozen as they were when they were submitted."""
