"""Where models look: plates, spread over learning rates."""
