"""Stage 1: deep ensembles that read one measurement each, with its uncertainty, off a radiograph."""
