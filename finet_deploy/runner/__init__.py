"""The native runner: a C++ program that speaks the benchmark protocol, and the self-contained folder it comes in.

Sources: `android_app/native/`. The folder runs on the host (`bench --runner native`) and, built for aarch64, on a
phone from `adb shell`, with its own loader and libraries.
"""

from __future__ import annotations

from finet_deploy.runner.folder import runner_command, runner_folder
from finet_deploy.runner.targets import NATIVE_RUNTIMES, TARGETS, host_target

__all__ = ["NATIVE_RUNTIMES", "TARGETS", "host_target", "runner_command", "runner_folder"]
