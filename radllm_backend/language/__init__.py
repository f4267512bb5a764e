"""The prompts that features become, and everything that knows a LLaMA model."""
