"""Fresh 68k PBMCs (10x Genomics), the reduced and annotated copy that scanpy ships."""
