"""One family of errors for phones, whichever way leads to them. Each names the phone, what happened, and the remedy."""

from __future__ import annotations

from finet_deploy.errors import FinetDeployError

__all__ = [
    "NoAdbServer",
    "PhoneError",
    "PhoneGone",
    "PhoneNoSpace",
    "PhoneProtocolError",
    "PhoneRefused",
    "PhoneTimeout",
    "PhoneUnauthorized",
    "refusal",
    "visible",
]

_MAX_VISIBLE = 300  # characters of a phone's own text in one message


def visible(text: str | bytes, limit: int = _MAX_VISIBLE) -> str:
    """Text from a phone as one printable line: no control characters, no escape sequences, bounded."""
    if isinstance(text, bytes):
        text = text[: 4 * limit].decode("utf-8", "replace")
    line = " ".join(text.split())
    cut = line if len(line) <= limit else line[: limit - 1] + "…"
    return "".join(character if character.isprintable() else "?" for character in cut)


class PhoneError(FinetDeployError):
    """Something is wrong with a phone or the way to it.

    phone: its name as the user gave it. what: what happened. do: the remedy; by default the class's own.
    """

    remedy = "check the phone and its connection, then try again"

    def __init__(self, phone: str, what: str, *, do: str | None = None) -> None:
        self.phone = phone
        super().__init__(visible(what, 3 * _MAX_VISIBLE), where=visible(phone), do=do or self.remedy)


class NoAdbServer(PhoneError):
    """No adb server answers, and none could be started."""

    remedy = (
        "install Android's platform-tools (adb), or go without them: --device tcp:HOST:PORT or usb:SERIAL"
    )


class PhoneGone(PhoneError):
    """The link ended or could not be made: cable, network, a reboot, a phone that is off or offline."""

    remedy = "check the cable or the network and that the phone is on; `adb devices` must list it as `device`"


class PhoneTimeout(PhoneError):
    """The phone said nothing for too long, or was not done in time."""

    remedy = (
        "check that the phone is awake and its link alive; unplug and plug it in again if it stays silent"
    )


class PhoneUnauthorized(PhoneError):
    """The phone does not trust this computer's key."""

    remedy = "unlock the phone and accept 'Allow USB debugging?' for this computer, then try again"


class PhoneProtocolError(PhoneError):
    """The phone's answer is not what the protocol allows, or has no end."""

    remedy = "try again; if it stays so, restart the phone, and look at what else uses its adb connection"


class PhoneRefused(PhoneError):
    """The phone answered no. `reason` is its own text."""

    remedy = "read the phone's reason; it lets the shell user write below /data/local/tmp only"

    def __init__(self, phone: str, what: str, reason: str | bytes, *, do: str | None = None) -> None:
        self.reason = visible(reason)
        super().__init__(phone, f"{what}: {self.reason or 'the phone gave no reason'}", do=do)


class PhoneNoSpace(PhoneRefused):
    """The phone's storage is full."""

    remedy = "free some space on the phone; `--clean` removes what this tool left there"


def refusal(phone: str, what: str, reason: str | bytes) -> PhoneRefused:
    """`PhoneRefused`, or `PhoneNoSpace` when the reason says so (the text of ENOSPC and EDQUOT in bionic)."""
    text = visible(reason)
    full = any(sign in text for sign in ("No space left on device", "Quota exceeded", "Disk quota exceeded"))
    return (PhoneNoSpace if full else PhoneRefused)(phone, what, text)
