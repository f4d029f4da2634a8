"""Finished runs mirrored to Weights & Biases. Records are the source; nothing is read back."""
