"""What makes training fast and changes no result."""
