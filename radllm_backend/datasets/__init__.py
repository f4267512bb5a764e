"""One file for each published data set: from its folder to a manifest of lesions."""
