"""What a worker process of this computer does first.

It leaves Ctrl-C to the main process, which ends it in order, and imports what the first lesion needs.
"""

from __future__ import annotations

import signal
from contextlib import suppress

with suppress(ImportError):  # what is missing is said of each lesion
    import radiomics.featureextractor  # noqa: F401

    from radllm_backend.batch import lesions  # noqa: F401
    from radllm_backend.features import pyradiomics  # noqa: F401
    from radllm_backend.imaging import dicom_decoding  # noqa: F401

signal.signal(signal.SIGINT, signal.SIG_IGN)
