"""Training of one stack in one process: plain PyTorch, no Ray, no file layout, no YAML."""
