"""The stacked Vision Transformer: K models of one shape, trained as one."""
