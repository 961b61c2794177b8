"""`python -m vitbench`: the same as the console script `vitbench`."""

from vitbench.cli import as_program

if __name__ == "__main__":
    as_program()
