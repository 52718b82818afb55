"""Boot an arm64 kernel in full-system emulation and run the native runner there, as an unprivileged user.

    python tests/benchmarks/boot_arm64.py bundles/finet_large_g4_se

Needs Debian's qemu-system-arm, cpio, gcc-aarch64-linux-gnu, and apt (a kernel and a busybox for arm64 are downloaded
and unpacked, not installed). The machine has nothing but the kernel, a static busybox and the runner's folder; user
2000 (`shell` on a phone) runs one visit in each runtime. Its outputs are compared with this machine's. Prints
Markdown; exit status 1 when an output is further than 1e-6 from this machine's, or a visit does not count.
Emulated: no time here is a speed.
"""

from __future__ import annotations

import base64
import gzip
import os
import re
import shutil
import subprocess
import sys
import tempfile
from pathlib import Path

import msgspec
from safetensors.numpy import load_file, save_file

sys.path.insert(0, str(Path(__file__).parents[2]))

from finet_deploy.bench.protocol import End, VisitRequest
from finet_deploy.bench.records import VisitResult, decode_lines
from finet_deploy.bench.validity import visit_problem
from finet_deploy.runner import runner_folder
from finet_deploy.verify.compare import compare
from tests.benchmarks.arm_outputs import LIMIT, ONCE
from tests.device.runner_native import Done, requests_for, run_native, with_golden

USER = 2000
HOME = "data/local/tmp/finet-deploy"
TIMEOUT_SECONDS = 1500.0
RUN_AS = f"""
#include <stdio.h>
#include <unistd.h>
int main(int argc, char **argv) {{
  if (argc < 2 || setgid({USER}) || setuid({USER})) return 126;
  execv(argv[1], argv + 1);
  perror(argv[1]);
  return 127;
}}
"""
INIT = f"""#!/bin/busybox sh
/bin/busybox mkdir -p /proc /sys /dev
/bin/busybox mount -t proc none /proc
/bin/busybox mount -t sysfs none /sys
/bin/busybox mount -t devtmpfs none /dev
cd /{HOME}
echo "@@kernel $(/bin/busybox uname -rm)"
for name in RUNTIMES; do
  /bin/run-as /bin/busybox sh runner/run.sh $name.json $name.jsonl --outputs $name.bin 2>$name.err
  echo "@@status $name $?"
  for kind in jsonl bin bin.json err; do
    echo "@@file $name.$kind"
    /bin/busybox base64 $name.$kind
    echo "@@end"
  done
done
echo "@@owner $(/bin/busybox stat -c %u executorch.jsonl)"
/bin/busybox poweroff -f
"""


def call(*command: str | Path, cwd: Path | None = None, env: dict[str, str] | None = None) -> str:
    """Run a tool; its words when it fails."""
    done = subprocess.run([str(c) for c in command], cwd=cwd, env=env, capture_output=True, text=True)
    if done.returncode != 0:
        sys.exit(f"{command[0]} failed: {done.stderr[-800:]}")
    return done.stdout


def fetch(folder: Path) -> tuple[Path, Path]:
    """Kernel image and busybox for arm64, from the mirror that this system uses."""
    mirror = call(
        "apt-get", "indextargets", "--format", "$(REPO_URI) $(CODENAME)", "Created-By: Packages"
    ).split("\n")
    uri, codename = next(
        line.split() for line in mirror if re.search(r" [a-z]+$", line) and "/debian/ " in line
    )
    apt = folder / "apt"
    for name in ("lists", "cache"):
        (apt / name).mkdir(parents=True)
    (apt / "status").touch()
    key = "/usr/share/keyrings/debian-archive-keyring.gpg"
    (apt / "sources.list").write_text(f"deb [signed-by={key}] {uri} {codename} main\n")
    (apt / "apt.conf").write_text(
        f'Dir::State::Lists "{apt}/lists"; Dir::State::status "{apt}/status"; Dir::Cache "{apt}/cache"; '
        f'Dir::Etc::SourceList "{apt}/sources.list"; Dir::Etc::SourceParts "/dev/null"; '
        'APT::Architecture "arm64"; APT::Architectures {"arm64";}; APT::Sandbox::User "root";\n'
    )
    env = {**os.environ, "APT_CONFIG": str(apt / "apt.conf")}
    call("apt-get", "update", "-qq", env=env)
    depends = call("apt-cache", "depends", "linux-image-arm64", env=env)
    kernel = re.search(r"Depends: (linux-image-\S+)", depends)[1]
    call("apt-get", "download", "-qq", "busybox-static", kernel, cwd=folder, env=env)
    for package in folder.glob("*.deb"):
        call("dpkg", "-x", package, folder / "unpacked")
    return next(folder.glob("unpacked/boot/vmlinuz-*")), next(folder.glob("unpacked/**/bin/busybox"))


def make_root(folder: Path, busybox: Path, requests: dict[str, VisitRequest]) -> Path:
    """The initial file system: all that the machine will have."""
    root = folder / "root"
    home = root / HOME
    (root / "bin").mkdir(parents=True)
    shutil.copy(busybox, root / "bin" / "busybox")
    (folder / "run_as.c").write_text(RUN_AS)
    call("aarch64-linux-gnu-gcc", "-static", "-Os", "-s", folder / "run_as.c", "-o", root / "bin" / "run-as")
    shutil.copytree(runner_folder("aarch64"), home / "runner")
    for runtime, request in requests.items():
        name = Path(request.artifact_path).name
        shutil.copy(request.artifact_path, home / name)
        shutil.copy(request.golden_path, home / "golden.safetensors")
        inside = msgspec.structs.replace(request, artifact_path=name, golden_path="golden.safetensors")
        (home / f"{runtime}.json").write_bytes(msgspec.json.encode(inside))
    (root / "init").write_text(INIT.replace("RUNTIMES", " ".join(requests)))
    (root / "init").chmod(0o755)
    for path in [home, *home.rglob("*")]:
        os.chown(path, USER, USER)
    names = "\n".join(str(path.relative_to(root)) for path in sorted(root.rglob("*")))
    done = subprocess.run(
        ["cpio", "-o", "-H", "newc", "--quiet"],
        input=names.encode(),
        cwd=root,
        capture_output=True,
        check=True,
    )
    (folder / "initrd.gz").write_bytes(gzip.compress(done.stdout, 1))
    return folder / "initrd.gz"


def boot(kernel: Path, initrd: Path) -> str:
    """What the machine printed, until it powered itself off."""
    command = [
        "qemu-system-aarch64",
        "-M",
        "virt",
        "-cpu",
        "cortex-a76",
        "-smp",
        "2",
        "-m",
        "1G",
        "-nic",
        "none",
    ]
    command += ["-nographic", "-no-reboot", "-kernel", str(kernel), "-initrd", str(initrd)]
    command += ["-append", "console=ttyAMA0 quiet panic=1 rdinit=/init"]
    console = initrd.with_name("console.txt")
    with console.open("wb") as stream:
        try:
            subprocess.run(
                command, stdin=subprocess.DEVNULL, stdout=stream, timeout=TIMEOUT_SECONDS, check=True
            )
        except subprocess.TimeoutExpired:
            sys.exit(f"the machine did not end by itself:\n{console.read_text(errors='replace')[-3000:]}")
    return console.read_bytes().decode("utf-8", "replace").replace("\r", "")


def collect(text: str, runtime: str, folder: Path) -> Done:
    """The files of one visit, out of the machine's words."""
    folder.mkdir()
    for kind, name in (("jsonl", "records.jsonl"), ("bin", "outputs.bin"), ("bin.json", "outputs.bin.json")):
        found = re.search(rf"@@file {runtime}\.{re.escape(kind)}\n(.*?)@@end", text, re.DOTALL)
        (folder / name).write_bytes(base64.b64decode("" if found is None else found[1]))
    with (folder / "records.jsonl").open("rb") as stream:
        records, _ = decode_lines(stream, runtime)
    status = re.search(rf"@@status {runtime} (\d+)", text)
    return Done(int(status[1]) if status else -1, records, text[-2000:], folder)


def main(bundle: Path) -> int:
    """Boot, compare, print."""
    with tempfile.TemporaryDirectory() as name:
        folder = Path(name)
        requests = requests_for(bundle, settings=ONCE)
        golden = load_file(next(iter(requests.values())).golden_path)
        wanted = next(iter(requests.values())).row.golden.output_limits
        kept = {key: value for key, value in golden.items() if key.partition(".")[2] in wanted}
        save_file(kept, folder / "golden.safetensors")
        requests = {key: with_golden(value, folder / "golden.safetensors") for key, value in requests.items()}
        kernel, busybox = fetch(folder)
        text = boot(kernel, make_root(folder, busybox, requests))
        machine = re.search(r"@@kernel (.*)", text)
        owner = re.search(r"@@owner (\d+)", text)
        if machine is None or owner is None:
            sys.exit(f"the machine did not come to its end:\n{text[-3000:]}")
        print(
            f"{bundle.name}, run by user {owner[1]} on Linux {machine[1]} (qemu-system-aarch64, cortex-a76)\n"
        )
        print("| runtime | exit status | aarch64 from here | from float64 | peak RSS, MiB |")
        print("| --- | ---: | ---: | ---: | ---: |")
        failed = int(owner[1]) != USER
        for runtime, request in requests.items():
            there = collect(text, runtime, folder / runtime)
            problem = visit_problem(VisitResult(request.visit.index, tuple(there.records)), request.row)
            if problem is not None or not isinstance(there.last, End):
                sys.exit(f"{runtime}: {problem}\n{there.stderr}")
            here = run_native(request, folder / f"{runtime}-host", "--outputs", "outputs.bin")
            error = compare(here.outputs(), there.outputs()).max_error
            truth = max(value or 0.0 for value in there.last.output_errors.values())
            rss = there.last.peak_rss_mib.value
            print(f"| {runtime} | {there.status} | {error:.1e} | {truth:.1e} | {rss:.1f} |")
            failed |= not error < LIMIT
        print(f"\nLimit: {LIMIT:g}. {'FAILED' if failed else 'Within it.'}")
        return 1 if failed else 0


if __name__ == "__main__":
    sys.exit(main(Path(sys.argv[1])))
