"""What ``python -m benchmarks`` measures: two ways to the same result, run in turn, as a ratio."""
