"""How training depends on the learning rate."""
