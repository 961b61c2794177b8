"""What a GPU computes in few launches: Triton programs and the steps made of them."""
