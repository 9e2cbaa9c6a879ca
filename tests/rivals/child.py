"""One capability on one loop, in this process, which says on a pipe what came of it."""

from __future__ import annotations

import json
import os
import signal
import sys
import warnings

from .registry import capabilities, load


def main() -> None:
    loop, subject, name, report = sys.argv[1], sys.argv[2], sys.argv[3], int(sys.argv[4])
    (chosen,) = [c for c in capabilities() if (c.subject, c.name) == (subject, name)]
    warnings.simplefilter("ignore")
    # Shells start what runs in the background with Ctrl-C ignored.
    signal.signal(signal.SIGINT, signal.default_int_handler)
    try:
        measured = chosen.run(load(loop))
        result = ["yes", "" if measured is None else str(measured)]
    except (KeyboardInterrupt, Exception) as error:
        text = str(error).strip().splitlines()
        result = ["no", f"{type(error).__name__}: {text[0]}" if text else type(error).__name__]
    os.write(report, json.dumps(result).encode())
    # Threads that a loop has left behind shall not keep the process.
    os._exit(0)


if __name__ == "__main__":
    main()
