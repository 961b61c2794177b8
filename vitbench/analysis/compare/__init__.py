"""Several results folders side by side."""
