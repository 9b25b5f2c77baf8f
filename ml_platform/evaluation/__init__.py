"""Is the candidate good enough? Figures, plots, gates."""
