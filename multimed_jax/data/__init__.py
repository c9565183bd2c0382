"""From built datasets to packed batches: sources, sizes, mixture, packing, assembly, loaders."""
