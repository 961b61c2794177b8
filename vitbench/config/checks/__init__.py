"""What is wrong with a sweep whose fields are right one by one: a module for each kind."""

from vitbench.config.checks.sweep import problems

__all__ = ["problems"]
