"""From scores and labels to the results table and Table 1, by a plan declared before looking."""
