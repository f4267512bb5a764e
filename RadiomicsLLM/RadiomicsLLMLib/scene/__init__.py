"""Images, segments and samples in the MRML scene."""
