"""AOSP's adbd by hand: `python -m tests.device.oracle --port 5600 --profile snapdragon855`."""

from __future__ import annotations

import argparse
import contextlib
import signal
import sys

from tests.device.oracle import Oracle, fetch
from tests.device.phone.faults import parse_fault
from tests.device.phone.options import NETWORK_MSS
from tests.device.profiles import profile_names


def main() -> None:
    parser = argparse.ArgumentParser(prog="python -m tests.device.oracle", description=__doc__)
    parser.add_argument(
        "--port", type=int, default=5600, help="on 5555 adb lists the phone twice; default 5600"
    )
    parser.add_argument("--profile", choices=profile_names(), default="snapdragon855")
    parser.add_argument("--mss", type=int, default=NETWORK_MSS, help="TCP segment size; 0 for loopback's")
    parser.add_argument("--data-bytes", type=int, help="size of /data/local/tmp, in memory")
    parser.add_argument(
        "--fault", action="append", default=[], type=parse_fault, metavar="KIND[,NAME=VALUE...]"
    )
    options = parser.parse_args()
    fetch.main()
    oracle = Oracle(
        options.profile,
        port=options.port,
        mss=options.mss or None,
        data_bytes=options.data_bytes,
        faults=options.fault,
    )
    signal.signal(signal.SIGTERM, lambda *_: sys.exit(0))  # so that the folder goes too
    with contextlib.suppress(KeyboardInterrupt), oracle:
        print(
            f"AOSP's adbd as {oracle.profile.title} (emulated) at {oracle.address}; ends with Ctrl-C",
            flush=True,
        )
        assert oracle.process is not None
        oracle.process.wait()
        sys.exit(oracle.log())


if __name__ == "__main__":
    main()
