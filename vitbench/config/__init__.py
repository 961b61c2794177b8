"""The sweep file: its models, and how it is read."""

from vitbench.config.axes import (
    AXES,
    axes_of,
    is_stackable,
    is_whole,
    model_settings,
    models_of,
    owner_of,
    setting_of,
)
from vitbench.config.checks.sweep import broken_shape_rule, divisors
from vitbench.config.loading import (
    PAPER,
    SweepFile,
    load_results_sweep,
    load_sweep,
    resolved_yaml,
    results_values,
)
from vitbench.config.models import (
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
)
from vitbench.config.problems import ConfigError
from vitbench.config.search import Budget, Checkpoints, Range, Search

__all__ = [
    "AXES", "EXPORTERS", "PAPER", "Budget", "Checkpoints", "ConfigError", "Dataset", "Evaluation",
    "Model", "Precision", "Range", "Resources", "Search", "SharedTrain", "Sweep", "SweepFile",
    "Train", "TrialConfig", "UsedPrecision", "axes_of", "broken_shape_rule", "divisors",
    "is_stackable", "is_whole", "load_results_sweep", "load_sweep", "model_settings", "models_of",
    "owner_of", "resolved_yaml", "results_values", "setting_of",
]  # fmt: skip
