"""How hard labels are, corrected for base rates."""
