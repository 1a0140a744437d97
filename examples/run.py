"""`make run`: server and one worker on SQLite under ./data, until Ctrl-C."""

from __future__ import annotations

import os
import signal
import sys
import time
from pathlib import Path

from examples.local_service import LocalService


def main() -> int:
    """Run both until one ends or the user interrupts; returns the exit status."""
    data_dir = Path(os.environ.get("MIAOD_DATA_DIR", "data"))
    port = int(os.environ.get("MIAOD_PORT", "8000"))
    # `kill` ends it as Ctrl-C does, so that the children are always stopped in order.
    signal.signal(signal.SIGTERM, signal.default_int_handler)
    try:
        with LocalService(data_dir=data_dir, port=port) as service:
            print(f"\nThe service is up: {service.url}/docs (Ctrl-C stops it)\n", flush=True)
            while (name := service.ended()) is None:
                time.sleep(0.5)
            print(f"The {name} ended by itself; stopping.", file=sys.stderr)
            return 1
    except RuntimeError as error:
        print(error, file=sys.stderr)
        return 1
    except KeyboardInterrupt:
        return 0


if __name__ == "__main__":
    sys.exit(main())
