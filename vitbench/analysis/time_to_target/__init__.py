"""How fast trials reach a target accuracy."""
