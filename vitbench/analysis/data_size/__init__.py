"""How error and loss fall with the number of training images."""
