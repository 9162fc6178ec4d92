"""What exists: dimensions, data IDs, collections, datasets, provenance and the one transaction."""
