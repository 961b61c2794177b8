"""vitbench: how a compact Vision Transformer depends on its settings, and where it looks.

Importing this package loads neither torch nor ray.
"""

__version__ = "0.1.0"
