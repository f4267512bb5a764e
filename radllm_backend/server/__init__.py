"""A server that gives the predictions of models to other programs, and its client."""
