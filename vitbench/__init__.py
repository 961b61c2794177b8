"""vitbench: how a compact Vision Transformer depends on its settings, and where it looks.

Importing this package loads neither torch nor ray.
"""

import os

__version__ = "0.1.0"

# Ray reads it when it is imported, so it is set before any module here can do so. Under `uv run`
# Ray would else upload the working folder and run `uv run` for every worker.
os.environ.setdefault("RAY_ENABLE_UV_RUN_RUNTIME_ENV", "0")
