"""The verb ``recalibrate``: a bundle whose scores are put right on a local sample, or re-based to a prevalence."""
