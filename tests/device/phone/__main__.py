"""A simulated phone by hand: `python -m tests.device.phone --port 5600 --profile snapdragon855`."""

from __future__ import annotations

import argparse
import contextlib
import json
import shlex
import signal
import sys
from typing import Any

from finet_deploy.app.standin import stand_in_folder
from tests.device.phone import KINDS, Phone, parse_fault
from tests.device.phone.options import FEATURES, NETWORK_MSS
from tests.device.profiles import profile_names

HELP = """orders: fault SPEC | strike SPEC | clear | state | reboot [SECONDS] | overheat [CELSIUS] | cool | quit
SPEC: KIND[,when=REGEX][,after_bytes=N][,after_s=S][,direction=in|out][,times=N|none][,value=X][,target=REGEX]"""


def arguments() -> argparse.Namespace:
    kinds = "\n".join(f"  {name:13}{text}" for name, text in KINDS.items())
    parser = argparse.ArgumentParser(
        prog="python -m tests.device.phone",
        description=__doc__,
        epilog=f"{HELP}\n\n{kinds}",
        formatter_class=argparse.RawDescriptionHelpFormatter,
    )
    parser.add_argument(
        "--port", type=int, default=5600, help="on 5555 adb lists the phone twice; default 5600"
    )
    parser.add_argument("--profile", choices=profile_names(), default="snapdragon855")
    parser.add_argument("--auth", choices=["none", "prompt", "known", "reject"], default="none")
    parser.add_argument(
        "--key", action="append", default=[], metavar="LINE", help="a line of adbkey.pub that is known"
    )
    parser.add_argument("--features", default=FEATURES)
    parser.add_argument("--max-payload", type=int, default=1 << 20, help="bytes; 4096 is an ancient phone")
    parser.add_argument("--mss", type=int, default=NETWORK_MSS, help="TCP segment size; 0 for loopback's")
    parser.add_argument("--data-bytes", type=int, help="size of /data/local/tmp, in memory")
    parser.add_argument(
        "--app", action="store_true", help="can run the app: finet-deploy app build --stand-in"
    )
    parser.add_argument("--fault", action="append", default=[], type=parse_fault, metavar="SPEC")
    return parser.parse_args()


def obey(phone: Phone, line: str) -> Any:
    """One line typed by a person. Raises ValueError, EOFError for `quit`."""
    word, *rest = shlex.split(line)
    if word == "fault" and len(rest) == 1:
        phone.set_fault(parse_fault(rest[0]))
    elif word == "strike" and len(rest) == 1:
        phone.strike(parse_fault(rest[0]))
    elif word == "clear":
        phone.clear_faults()
    elif word == "state":
        return json.dumps(phone.state(), indent=1)
    elif word == "reboot":
        phone.reboot(float(rest[0]) if rest else 1.0)
    elif word == "overheat":
        phone.strike("overheat", value=float(rest[0]) if rest else None)
    elif word == "cool":
        phone.personality.cool()
    elif word == "quit":
        raise EOFError
    else:
        raise ValueError(HELP)
    return "done"


def main() -> None:
    options = arguments()
    phone = Phone(
        options.profile,
        port=options.port,
        auth=options.auth,
        keys=options.key,
        features=options.features,
        max_payload=options.max_payload,
        mss=options.mss or None,
        data_bytes=options.data_bytes,
        faults=options.fault,
        app=str(stand_in_folder()) if options.app else "",
    )
    phone.expect_violations = True
    signal.signal(signal.SIGTERM, lambda *_: sys.exit(0))  # so that the folder goes too
    with contextlib.suppress(KeyboardInterrupt, EOFError), phone:
        print(
            f"{phone.profile.title} (simulated) at {phone.address}; data in {phone.path('/data/local/tmp')}"
        )
        print(HELP, flush=True)
        for line in sys.stdin:
            if line.strip():
                try:
                    print(obey(phone, line), flush=True)
                except (ValueError, RuntimeError) as error:
                    print(error, flush=True)
        if not sys.stdin.isatty() and phone.process is not None:
            phone.process.wait()  # started in the background: until a signal


if __name__ == "__main__":
    main()
