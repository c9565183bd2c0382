"""Human Cell Landscape: expression of cell clusters over organs and stages."""
