"""The image sets by name: where their files lie, and what is in them."""
