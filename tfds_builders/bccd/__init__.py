"""Single blood cells cut from smear photographs by their boxes (BCCD)."""
