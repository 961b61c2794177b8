"""Joining a Ray cluster and what it holds."""
