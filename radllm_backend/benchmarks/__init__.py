"""What ``radllm bench`` measures: two ways to the same result, run in turn, as a ratio."""
