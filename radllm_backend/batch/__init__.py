"""Every lesion of a DICOM database, a folder or a manifest, in a run that can be resumed."""
