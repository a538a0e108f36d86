"""What the benchmark of the search is made of: cohorts, and the contenders."""
