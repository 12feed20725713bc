"""A module that takes its time to be imported, and tells which processes did it, in `$LLMBUILD_TEST_RUNS`.imports.

`$LLMBUILD_TEST_THREAD` makes it start a thread, as a module does that cannot be forked.
"""

from __future__ import annotations

import os
import threading
import time
from pathlib import Path

with Path(os.environ["LLMBUILD_TEST_RUNS"] + ".imports").open("a") as file:
    file.write(f"{os.getpid()}\n")
time.sleep(0.2)
if os.environ.get("LLMBUILD_TEST_THREAD"):
    threading.Thread(target=time.sleep, args=(60,), daemon=True).start()
