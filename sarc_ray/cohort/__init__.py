"""Who is in the study: the manifest, eligibility, outcome definitions and splits."""
