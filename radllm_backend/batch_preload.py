"""What a worker process of this computer does first: it leaves Ctrl-C to the main process, which ends it in order."""

from __future__ import annotations

import signal

signal.signal(signal.SIGINT, signal.SIG_IGN)
