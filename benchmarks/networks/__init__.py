"""What the benchmarks of training and of inference share."""
