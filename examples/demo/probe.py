"""A program that says which event loop it was given, as JSON. The demo runs it before the rest."""

from __future__ import annotations

import asyncio
import json
import sys


async def main() -> None:
    loop = type(asyncio.get_running_loop())
    package = loop.__module__.partition(".")[0]
    # A turn of the loop, a timer and a thread: a loop that cannot do these is not worth timing.
    await asyncio.sleep(0.001)
    await asyncio.to_thread(int)
    print(
        json.dumps(
            {
                "loop": f"{loop.__module__}.{loop.__qualname__}",
                "version": getattr(sys.modules.get(package), "__version__", ""),
            }
        )
    )


if __name__ == "__main__":
    asyncio.run(main())
