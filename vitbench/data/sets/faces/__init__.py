"""Drawn portraits with exact labels, as a stand-in for CelebA."""
