"""Copies of the results for other tools."""
