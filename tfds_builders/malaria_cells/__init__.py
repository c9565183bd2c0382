"""Single red cells of thin blood smears, with or without malaria parasites (LHNCBC)."""
