"""The command ``radllm``: one file for each group of commands."""
