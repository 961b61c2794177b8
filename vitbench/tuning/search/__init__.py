"""Who decides which stack trains next."""
