"""From an image and a mask, in any format, to a `Lesion`."""
