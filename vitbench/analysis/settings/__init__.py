"""Settings of a sweep beside each other."""
