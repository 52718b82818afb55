"""What a phone's package manager answers, and what to do about it.

The codes are those of Android's `PackageManager`; the texts behind them differ by version and are passed on as they
are. None of these was recorded by us on a phone.
"""

from __future__ import annotations

import re

from finet_deploy.devices.adb.errors import PhoneNoSpace, PhoneRefused, visible
from finet_deploy.devices.app.names import PACKAGE

__all__ = ["AppRefused", "installed_listing", "refused_install", "succeeded"]

UNINSTALL = f"`adb uninstall {PACKAGE}` removes it and what it keeps on the phone; then try again"
# code -> what it means, what to do. The first that is found in the answer decides.
EXPLAINED: tuple[tuple[str, str, str], ...] = (
    (
        "INSTALL_FAILED_UPDATE_INCOMPATIBLE",
        "an app of this name with another signature is installed (debug keys differ between computers)",
        UNINSTALL,
    ),
    (
        "INSTALL_FAILED_SHARED_USER_INCOMPATIBLE",
        "an app of this name with another signature is installed",
        UNINSTALL,
    ),
    ("INSTALL_FAILED_VERSION_DOWNGRADE", "a newer version of the app is installed", UNINSTALL),
    (
        "INSTALL_FAILED_NO_MATCHING_ABIS",
        "the APK has no libraries for this phone's processor",
        "build it for arm64-v8a and x86_64: `finet-deploy app build`; phones with a 32-bit system cannot run it",
    ),
    (
        "INSTALL_FAILED_USER_RESTRICTED",
        "the phone or its user forbids installing over USB",
        "unlock the phone and confirm; on Xiaomi, OPPO and vivo switch on 'Install via USB' in the developer options; "
        "on a managed phone its policy decides",
    ),
    (
        "INSTALL_FAILED_ABORTED",
        "the installation was not confirmed on the phone",
        "unlock the phone, confirm the installation on its screen, then try again",
    ),
    (
        "INSTALL_FAILED_REJECTED_BY_BUILDTYPE",
        "the phone's policy forbids this kind of APK",
        "sign it with a release key: see `finet-deploy app build --help`",
    ),
    (
        "INSTALL_FAILED_VERIFICATION",
        "the phone's verifier refused the app",
        "switch off 'Verify apps over USB' in the developer options, or confirm on the screen",
    ),
    ("INSTALL_FAILED_OLDER_SDK", "the phone's Android is too old", "the app needs Android 8 or later"),
    (
        "INSTALL_FAILED_DEPRECATED_SDK_VERSION",
        "the phone's Android refuses apps made for old versions",
        "build the app again: `finet-deploy app build --force`",
    ),
    (
        "INSTALL_PARSE_FAILED",
        "the phone cannot read the APK or its signature",
        "build it again: `finet-deploy app build --force`",
    ),
    (
        "INSTALL_FAILED_INVALID_APK",
        "the phone cannot read the APK",
        "build it again: `finet-deploy app build --force`",
    ),
    (
        "SecurityException",
        "the phone's policy does not let adb's shell install apps",
        "on Xiaomi switch on 'USB debugging (Security settings)'; on a managed phone ask who manages it",
    ),
)
FULL = ("INSTALL_FAILED_INSUFFICIENT_STORAGE", "not enough space", "No space left on device")
LISTED = re.compile(r"package:/[^\s\"'$`\\]+")


class AppRefused(PhoneRefused):
    """The phone does not take the app, or does not start it."""

    remedy = "read the phone's reason; unlock the phone, and try again"


def succeeded(answer: bytes) -> bool:
    """Whether `pm install` says that it installed. Its exit status does not tell on every version."""
    return re.search(rb"^Success\s*$", answer, re.MULTILINE) is not None


def refused_install(phone: str, answer: bytes) -> PhoneRefused:
    """The error for an answer of `pm install` without success."""
    text = visible(answer)
    what = "while installing the app"
    if any(sign in text for sign in FULL):
        return PhoneNoSpace(
            phone,
            f"{what}: the phone's storage is full",
            text,
            do="free some space on the phone, then try again",
        )
    for code, meaning, do in EXPLAINED:
        if code in text:
            return AppRefused(phone, f"{what}: {meaning}", text, do=do)
    return AppRefused(phone, what, text)


def installed_listing(answer: bytes) -> tuple[str, ...]:
    """The lines of `pm path PACKAGE`, `package:/data/app/.../base.apk` first; none when it is not installed."""
    lines = answer.decode("utf-8", "replace").split()
    return tuple(line for line in lines if LISTED.fullmatch(line) and ".." not in line)[:64]
