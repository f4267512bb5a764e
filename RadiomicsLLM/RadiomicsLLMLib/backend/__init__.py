"""Where the language model runs."""
