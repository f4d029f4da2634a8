"""Training: one step function, driven by Lightning."""
