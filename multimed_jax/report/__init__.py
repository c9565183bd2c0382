"""The report of one or more runs: a self-contained page and its figures, views of what is stored."""
