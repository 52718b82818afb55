"""A profile as the files and answers of a phone. Formats: `dumpsys`, `/proc` and `/sys` of Android and Linux."""

from __future__ import annotations

from tests.device.profiles import Cluster, Profile

__all__ = [
    "battery_text",
    "cpu_files",
    "cpu_list",
    "cpuinfo_text",
    "memory_text",
    "power_text",
    "stat_text",
    "thermal_text",
    "version_text",
]

HAL_STATUS = "Temperature{{mValue={value:.1f}, mType={kind}, mName={name}, mStatus={status}}}"


def cpu_list(cores: list[int]) -> str:
    """Linux's list format: `0-3,6`."""
    ranges: list[list[int]] = []
    for core in sorted(cores):
        if ranges and ranges[-1][1] == core - 1:
            ranges[-1][1] = core
        else:
            ranges.append([core, core])
    return ",".join(f"{low}-{high}" if high > low else str(low) for low, high in ranges)


def mask(cores: tuple[int, ...]) -> str:
    return f"{sum(1 << core for core in cores):x}"


def cpuinfo_text(profile: Profile, online: list[int]) -> str:
    """/proc/cpuinfo: online cores only."""
    blocks = []
    for core in online:
        cluster = profile.cluster_of(core)
        blocks.append(
            f"processor\t: {core}\nBogoMIPS\t: 38.40\nFeatures\t: {profile.cpu_features}\n"
            f"CPU implementer\t: 0x{cluster.implementer:02x}\nCPU architecture: 8\n"
            f"CPU variant\t: 0x{cluster.variant:x}\nCPU part\t: 0x{cluster.part:03x}\n"
            f"CPU revision\t: {cluster.revision}\n"
        )
    return "\n".join(blocks) + "\n"


def cpu_files(profile: Profile) -> dict[str, str]:
    """Files below /sys/devices/system/cpu, the clock policies' among them; see `policy_files`."""
    everything = cpu_list(profile.cores)
    files = dict.fromkeys(("possible", "present", "online"), everything + "\n")
    files["offline"] = "\n"
    files["kernel_max"] = f"{max(profile.cores)}\n"
    for cluster in profile.clusters:
        files |= policy_files(cluster)
        for core in cluster.cores:
            files |= {
                f"cpu{core}/cpu_capacity": f"{cluster.capacity}\n",
                f"cpu{core}/online": "1\n",
                f"cpu{core}/topology/physical_package_id": "0\n",
                f"cpu{core}/topology/core_id": f"{core}\n",
                f"cpu{core}/topology/core_siblings_list": cpu_list(list(cluster.cores)) + "\n",
                f"cpu{core}/topology/core_siblings": mask(cluster.cores) + "\n",
                f"cpu{core}/topology/cluster_cpus_list": cpu_list(list(cluster.cores)) + "\n",
                f"cpu{core}/topology/cluster_id": f"{profile.clusters.index(cluster)}\n",
                f"cpu{core}/topology/thread_siblings_list": f"{core}\n",
                f"cpu{core}/regs/identification/midr_el1": f"0x{cluster.midr:016x}\n",
            }
    return files


def policy_files(cluster: Cluster) -> dict[str, str]:
    """cpufreq of one cluster at its lowest clock. Times in state are in units of 10 ms."""
    low, high = cluster.frequencies[0], cluster.frequencies[-1]
    folder = f"cpufreq/policy{cluster.cores[0]}"
    steps = " ".join(map(str, cluster.frequencies))
    return {
        f"{folder}/cpuinfo_min_freq": f"{low}\n",
        f"{folder}/cpuinfo_max_freq": f"{high}\n",
        f"{folder}/cpuinfo_cur_freq": f"{low}\n",
        f"{folder}/scaling_min_freq": f"{low}\n",
        f"{folder}/scaling_max_freq": f"{high}\n",
        f"{folder}/scaling_cur_freq": f"{low}\n",
        f"{folder}/scaling_governor": f"{cluster.governor}\n",
        f"{folder}/scaling_available_frequencies": f"{steps} \n",
        f"{folder}/scaling_available_governors": f"{cluster.governor} performance powersave\n",
        f"{folder}/related_cpus": " ".join(map(str, cluster.cores)) + "\n",
        f"{folder}/affected_cpus": " ".join(map(str, cluster.cores)) + "\n",
        f"{folder}/stats/time_in_state": "".join(f"{step} 1000\n" for step in cluster.frequencies),
    }


def battery_text(battery: dict[str, object], *, faked: bool = False) -> str:
    """`dumpsys battery`."""
    head = "Current Battery Service state:\n"
    if faked:
        head += "  (UPDATES STOPPED -- use 'reset' to restart)\n"
    return head + "".join(f"  {name}: {value}\n" for name, value in battery.items())


def thermal_text(sensors: list[tuple[str, int, float, int]], status: int, *, faked: bool = False) -> str:
    """`dumpsys thermalservice`. The cached block is stale on purpose: nothing may read it."""
    lines = [
        f"IsStatusOverride: {'true' if faked else 'false'}",
        "ThermalEventListeners:\n\tcallbacks: 1\n\tkilled: false\n\tbroadcasts count: -1",
        "ThermalStatusListeners:\n\tcallbacks: 1\n\tkilled: false\n\tbroadcasts count: -1",
        f"Thermal Status: {status}",
        "Cached temperatures:",
        *(
            "\t" + HAL_STATUS.format(name=name, kind=kind, value=99.9, status=0)
            for name, kind, _, _ in sensors[:2]
        ),
        "HAL Ready: true",
        "HAL connection:\n\tThermalHAL 2.0 connected: yes",
        "Current temperatures from HAL:",
        *(
            "\t" + HAL_STATUS.format(name=name, kind=kind, value=value, status=level)
            for name, kind, value, level in sensors
        ),
        "Current cooling devices from HAL:",
        "\tCoolingDevice{mValue=0, mType=2, mName=thermal-cpufreq-0}",
    ]
    return "\n".join(lines) + "\n"


def power_text(*, awake: bool = True, saving: bool = False) -> str:
    """The lines of `dumpsys power` that tell screen and power saving."""
    return (
        "POWER MANAGER (dumpsys power)\n\nPower Manager State:\n"
        f"  mWakefulness={'Awake' if awake else 'Asleep'}\n  mIsPowered=true\n  mPlugType=2\n"
        f"  mBatteryLevel=100\n\nDisplay Power: state={'ON' if awake else 'OFF'}\n\n"
        f"Battery Saver:\n  mSettingBatterySaverEnabled={str(saving).lower()}\n"
        f"  Battery saver is currently: {'ON' if saving else 'OFF'}\n  mLowPowerModeEnabled={str(saving).lower()}\n"
    )


def memory_text(total_kb: int, available_kb: int) -> str:
    """The head of /proc/meminfo."""
    rows = {
        "MemTotal": total_kb,
        "MemFree": available_kb // 4,
        "MemAvailable": available_kb,
        "Buffers": 5120,
        "Cached": available_kb // 2,
        "SwapCached": 0,
        "SwapTotal": 4194300,
        "SwapFree": 4000000,
    }
    return "".join(f"{name + ':':<15} {value:>8} kB\n" for name, value in rows.items())


def version_text(profile: Profile) -> str:
    return (
        f"Linux version {profile.kernel} (build-user@build-host) (clang version 12.0.5) "
        f"#1 SMP PREEMPT Thu Mar 2 00:00:00 UTC 2023\n"
    )


def stat_text(profile: Profile, booted: float) -> str:
    """/proc/stat; `booted` in seconds since the epoch."""
    row = "1000 10 500 90000 20 0 5 0 0 0"
    cores = "".join(f"cpu{core} {row}\n" for core in profile.cores)
    counts = f"intr 0\nctxt 123456\nbtime {int(booted)}\nprocesses 4321\nprocs_running 1\nprocs_blocked 0\n"
    return f"cpu  {row}\n{cores}{counts}"
