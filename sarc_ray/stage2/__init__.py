"""Stage 2: from clinical features and stage-1 predictions to one calibrated score per patient."""
