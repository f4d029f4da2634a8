"""From YAML to a checked, hashed training configuration."""

from hypersphere.config.components import Component
from hypersphere.config.compose import compose, compose_values, split_config
from hypersphere.config.training import (
    Computation,
    Evaluation,
    Node,
    Training,
    check_training,
    digest,
)

__all__ = [
    "Component",
    "Computation",
    "Evaluation",
    "Node",
    "Training",
    "check_training",
    "compose",
    "compose_values",
    "digest",
    "split_config",
]
