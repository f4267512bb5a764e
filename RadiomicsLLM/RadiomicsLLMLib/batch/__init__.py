"""Every lesion of the DICOM database, in a process of its own."""
