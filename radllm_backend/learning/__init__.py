"""From tables of lesions to a model, and how good it is on lesions that it has not seen."""
