"""From the folder of a published data set to a manifest of its lesions, with one file for each data set."""
