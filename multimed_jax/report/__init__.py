"""The report of runs: a self-contained page and its figures, views of what is stored."""
