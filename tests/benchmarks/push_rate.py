"""How fast we push, over how fast the official adb client does. Exit 1 below 0.9 (adb server) or 0.4 (direct).

    python tests/benchmarks/push_rate.py [--megabytes 20] [--rounds 61]
    python tests/benchmarks/push_rate.py --serial SERIAL --direct tcp:HOST:PORT

Without a phone, AOSP's adbd in its sandbox is the other side, behind a relay with segments of 1448 bytes; the figures
are then of this machine's loopback, and only their ratios mean anything. Every round pushes the same file once by each
way, in rotated order; each push goes to a new file, whose SHA-256 the phone computes afterwards, outside the clock. The
official client's time includes the start of its process, as a user would have it. A ratio is paired by round; its
bootstrap interval's lower end has to reach the limit.
"""

from __future__ import annotations

import argparse
import contextlib
import os
import socket
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable, Iterator
from pathlib import Path

from finet_deploy.bench.statistics import median_estimate
from finet_deploy.devices.adb import AdbServer, Connection, open_connection, quote
from finet_deploy.devices.adb.adb_program import find_adb
from finet_deploy.files import sha256_file

FOLDER = "/data/local/tmp/finet-deploy-push-rate"
LIMITS = {"adb server": 0.9, "direct": 0.4}
NETWORK_MSS = 1448
WARM_UP_ROUNDS = 2


@contextlib.contextmanager
def sandbox(adb: Path) -> Iterator[tuple[str, str]]:
    """adbd in its sandbox and an adb server of our own: its serial and its direct address."""
    from tests.device.oracle import Oracle

    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        os.environ["ANDROID_ADB_SERVER_PORT"] = str(free.getsockname()[1])
    os.environ.pop("ADB_SERVER_SOCKET", None)
    with Oracle("snapdragon855", mss=NETWORK_MSS) as oracle:
        serial = f"127.0.0.1:{oracle.port}"
        try:
            AdbServer().query(f"host:connect:{serial}", serial)
            yield serial, f"tcp:{serial}"
        finally:
            subprocess.run([str(adb), "kill-server"], check=False)  # ours: on its own port


def official(adb: Path, serial: str, file: Path, remote: str) -> None:
    done = subprocess.run([str(adb), "-s", serial, "push", str(file), remote], capture_output=True, text=True)
    if done.returncode != 0:
        raise SystemExit(f"adb push failed: {done.stdout} {done.stderr}")


def seconds(push: Callable[[str], None], phone: Connection, digest: str, remote: str) -> float:
    """Time of one push, whose result is checked and removed."""
    before = time.perf_counter()
    push(remote)
    taken = time.perf_counter() - before
    found = phone.shell(quote("sha256sum", remote)).stdout.split()
    if not found or found[0].decode() != digest:
        raise SystemExit(f"{remote} arrived damaged: {found} instead of {digest}")
    phone.shell(quote("rm", "-f", remote))
    return taken


def measure(adb: Path, serial: str, direct: str, file: Path, rounds: int) -> dict[str, list[float]]:
    """Seconds of each push by way and round."""
    through_server, directly = open_connection(serial), open_connection(direct)
    ways: dict[str, Callable[[str], None]] = {
        "official": lambda remote: official(adb, serial, file, remote),
        "adb server": lambda remote: through_server.push(file, remote),
        "direct": lambda remote: directly.push(file, remote),
    }
    taken: dict[str, list[float]] = {name: [] for name in ways}
    digest, names = sha256_file(file), list(ways)
    try:
        through_server.shell(quote("mkdir", "-p", FOLDER))
        for turn in range(WARM_UP_ROUNDS + rounds):
            for name in names[turn % 3 :] + names[: turn % 3]:
                spent = seconds(ways[name], through_server, digest, f"{FOLDER}/{turn}")
                if turn >= WARM_UP_ROUNDS:
                    taken[name].append(spent)
    finally:
        through_server.shell(quote("rm", "-rf", FOLDER))
        directly.close()
    return taken


def report(taken: dict[str, list[float]], megabytes: float) -> bool:
    passed = True
    for name, times in taken.items():
        rate = median_estimate([megabytes / spent for spent in times])
        print(f"{name:<11} {rate.value:7.1f} MB/s [{rate.low:.1f}, {rate.high:.1f}]")
    for name, limit in LIMITS.items():
        ratio = median_estimate([a / b for a, b in zip(taken["official"], taken[name])])
        good = ratio.low is not None and ratio.low >= limit
        passed &= good
        print(
            f"{name} over official: {ratio.value:.2f} [{ratio.low:.2f}, {ratio.high:.2f}] (95 %, paired), "
            f"limit {limit:g}: {'PASS' if good else 'FAIL'}"
        )
    return passed


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__.partition("\n")[0])
    parser.add_argument("--serial", help="a phone of the adb server; by default adbd in its sandbox")
    parser.add_argument("--direct", help="the same phone as tcp:HOST:PORT")
    parser.add_argument("--megabytes", type=int, default=20)
    parser.add_argument("--rounds", type=int, default=61)
    options = parser.parse_args()
    if (options.serial is None) != (options.direct is None):
        parser.error("--serial and --direct go together")
    adb = find_adb()
    if adb is None:
        parser.error("there is no adb to compare with")
    with contextlib.ExitStack() as stack:
        file = Path(stack.enter_context(tempfile.TemporaryDirectory())) / "file"
        file.write_bytes(os.urandom(options.megabytes * 1_000_000))
        serial, direct = options.serial, options.direct
        if serial is None:
            serial, direct = stack.enter_context(sandbox(adb))
            print("AOSP's adbd in its sandbox, this machine's loopback, segments of 1448 bytes: no phone")
        version = subprocess.run([str(adb), "version"], capture_output=True, text=True).stdout.splitlines()[1]
        print(f"official client: {version}; {options.megabytes} MB, {options.rounds} rounds", flush=True)
        return 0 if report(measure(adb, serial, direct, file, options.rounds), options.megabytes) else 1


if __name__ == "__main__":
    sys.exit(main())
