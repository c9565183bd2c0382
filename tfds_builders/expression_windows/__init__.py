"""Expression of genes from the DNA round their starts: a genome, an annotation, a table."""
