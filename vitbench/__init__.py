"""vitbench: how a compact Vision Transformer depends on its settings, and where it looks.

`load_sweep`, `run`, `open` and `load_model` are for notebooks and programs (see vitbench.api).
Importing this package loads neither torch nor ray; they come when a function needs them.
"""

import importlib
import os
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from vitbench.api import Results, load_model, load_sweep, open, run

__version__ = "0.1.0"
__all__ = ["Results", "__version__", "load_model", "load_sweep", "open", "run"]

# Ray reads it when it is imported, so it is set before any module here can do so. Under `uv run`
# Ray would else upload the working folder and run `uv run` for every worker.
os.environ.setdefault("RAY_ENABLE_UV_RUN_RUNTIME_ENV", "0")


def __getattr__(name: str) -> Any:
    if name in __all__:
        return getattr(importlib.import_module("vitbench.api"), name)
    raise AttributeError(f"module 'vitbench' has no attribute {name!r}")
