"""Parts of the benchmark of population scoring."""
