"""Where lesions come from: data sets on disk, and phantoms made from a seed."""
