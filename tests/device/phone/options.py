"""How one emulated phone is started; travels as JSON into the namespaces."""

from __future__ import annotations

import json
from dataclasses import asdict, dataclass, field
from typing import Any

__all__ = ["FEATURES", "NETWORK_MSS", "OPTIONS_VARIABLE", "Options"]

NETWORK_MSS = 1448  # of Ethernet and Wi-Fi: loopback's 64 KB hides writes that are cut short
OPTIONS_VARIABLE = "FINET_PHONE_OPTIONS"
FEATURES = "shell_v2,cmd,stat_v2,ls_v2,fixed_push_mkdir,sendrecv_v2,apex,abb_exec,remount_shell"
PATH = "/product/bin:/system/bin:/system/xbin:/vendor/bin"


@dataclass
class Options:
    """auth: `none`, `prompt` (a new key is accepted after `prompt_s` seconds), `known` (only `keys`, lines of
    adbkey.pub; the prompt is never answered) or `reject`. mss: TCP's segment size in bytes, None for loopback's.
    max_payload: the largest packet, 4096 on ancient phones. data_bytes: size of /data/local/tmp, None for the disk's.
    reboot_s: how long a reboot that the host asks for keeps the port closed; boot_s: from then to
    sys.boot_completed. app: the folder with the app's code for this machine's Java, which then can run there."""

    profile: str = "snapdragon855"
    port: int = 0
    mss: int | None = NETWORK_MSS
    data_bytes: int | None = None
    auth: str = "none"
    keys: list[str] = field(default_factory=list)
    prompt_s: float = 0.2
    features: str = FEATURES
    max_payload: int = 1 << 20
    reboot_s: float = 1.0
    boot_s: float = 0.5
    environment: dict[str, str] = field(default_factory=dict)
    app: str = ""
    # set by the fixture
    folder: str = ""
    userland: str = ""
    machine_pids: int = 0  # inode of the machine's pid namespace: whoever finds it again must not kill
    control_fd: int = -1
    listen_fd: int = -1

    def __post_init__(self) -> None:
        if self.auth not in ("none", "prompt", "known", "reject"):
            raise ValueError(f"auth is none, prompt, known or reject, not {self.auth!r}")

    def encode(self) -> str:
        return json.dumps(asdict(self))

    @classmethod
    def decode(cls, text: str) -> Options:
        values: dict[str, Any] = json.loads(text)
        return cls(**values)

    def child_environment(self, qemu_cpu: str) -> dict[str, str]:
        """What init gives adbd. QEMU_CPU is ours: the instructions that aarch64 programs find."""
        return {
            "PATH": PATH,
            "ANDROID_DATA": "/data",
            "ANDROID_ROOT": "/system",
            "QEMU_CPU": qemu_cpu,
            **self.environment,
        }
