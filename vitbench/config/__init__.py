"""The sweep file: its models, and how it is read."""

from vitbench.config.checks import broken_shape_rule, divisors
from vitbench.config.loading import (
    PAPER,
    SweepFile,
    load_results_sweep,
    load_sweep,
    resolved_yaml,
    results_values,
)
from vitbench.config.models import (
    AXES,
    EXPORTERS,
    Dataset,
    Evaluation,
    Model,
    Precision,
    Resources,
    SharedTrain,
    Sweep,
    Train,
    TrialConfig,
    UsedPrecision,
    is_stackable,
    is_whole,
)
from vitbench.config.problems import ConfigError
from vitbench.config.search import Budget, Checkpoints, Range, Search

__all__ = [
    "AXES", "EXPORTERS", "PAPER", "Budget", "Checkpoints", "ConfigError", "Dataset", "Evaluation",
    "Model", "Precision", "Range", "Resources", "Search", "SharedTrain", "Sweep", "SweepFile",
    "Train", "TrialConfig", "UsedPrecision", "broken_shape_rule", "divisors", "is_stackable",
    "is_whole", "load_results_sweep", "load_sweep", "resolved_yaml", "results_values",
]  # fmt: skip
