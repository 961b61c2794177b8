"""Copies of a sweep's results for other tools; the results never depend on them."""
