"""Where trained models look: maps, scores and plates of a results folder."""
