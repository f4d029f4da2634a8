"""From YAML to a checked, hashed training configuration."""

from hypersphere.config.components import Component
from hypersphere.config.compose import compose, compose_values, split_config
from hypersphere.config.training import Evaluation, Training, digest

__all__ = [
    "Component",
    "Evaluation",
    "Training",
    "compose",
    "compose_values",
    "digest",
    "split_config",
]
