"""A trained model on disk, and what it says of a lesion."""
