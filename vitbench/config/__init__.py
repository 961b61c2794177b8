"""The sweep file: its models, and how it is read."""

from vitbench.config.checks import broken_shape_rule, divisors
from vitbench.config.loading import PAPER, load_sweep, resolved_yaml
from vitbench.config.models import (
    AXES,
    EXPORTERS,
    Dataset,
    Model,
    Precision,
    Resources,
    Sweep,
    Train,
    TrialConfig,
    is_stackable,
)
from vitbench.config.problems import ConfigError
from vitbench.config.search import Budget, Checkpoints, Range, Search

__all__ = [
    "AXES",
    "EXPORTERS",
    "PAPER",
    "Budget",
    "Checkpoints",
    "ConfigError",
    "Dataset",
    "Model",
    "Precision",
    "Range",
    "Resources",
    "Search",
    "Sweep",
    "Train",
    "TrialConfig",
    "broken_shape_rule",
    "divisors",
    "is_stackable",
    "load_sweep",
    "resolved_yaml",
]
