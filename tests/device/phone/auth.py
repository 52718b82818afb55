"""The phone's side of ADB's authentication: RSA-2048, a token in the place of a SHA-1 digest."""

from __future__ import annotations

import base64
import binascii
import struct
from dataclasses import dataclass

__all__ = ["AUTH_RSAPUBLICKEY", "AUTH_SIGNATURE", "AUTH_TOKEN", "PublicKey", "parse_public_key", "verify"]

AUTH_TOKEN, AUTH_SIGNATURE, AUTH_RSAPUBLICKEY = 1, 2, 3
WORDS = 64  # of 32 bits: 2048 bits
ENCODED_BYTES = 4 + 4 + 256 + 256 + 4
SHA1_PREFIX = bytes.fromhex("3021300906052b0e03021a05000414")  # DigestInfo of a 20-byte SHA-1, RFC 8017 9.2


@dataclass(frozen=True)
class PublicKey:
    """An RSA public key: modulus and exponent."""

    modulus: int
    exponent: int


def parse_public_key(text: bytes) -> PublicKey:
    """The key in the payload of AUTH RSAPUBLICKEY, or in one line of `adbkey.pub`. Raises ValueError.

    Base64 of 524 bytes: number of words, n0inv, modulus (little endian), R^2 mod n, exponent; then ` user@host`.
    """
    fields = text.rstrip(b"\0\n").split(None, 1)
    if not fields:
        raise ValueError("an empty key")
    try:
        raw = base64.b64decode(fields[0], validate=True)
    except binascii.Error as error:
        raise ValueError(f"not base64: {error}") from error
    if len(raw) != ENCODED_BYTES:
        raise ValueError(f"{len(raw)} bytes, not {ENCODED_BYTES}")
    words, n0inv = struct.unpack_from("<II", raw)
    modulus = int.from_bytes(raw[8:264], "little")
    (exponent,) = struct.unpack_from("<I", raw, 520)
    if words != WORDS or modulus.bit_length() != 2048 or exponent not in (3, 65537):
        raise ValueError(f"{words} words, {modulus.bit_length()} bits, exponent {exponent}")
    if modulus * n0inv % (1 << 32) != (1 << 32) - 1:
        raise ValueError("n0inv is not -1/n mod 2^32")
    return PublicKey(modulus, exponent)


def verify(key: PublicKey, token: bytes, signature: bytes) -> bool:
    """Whether `signature` is PKCS#1 v1.5 over `token`, taken as a SHA-1 digest."""
    size = (key.modulus.bit_length() + 7) // 8
    if len(signature) != size:
        return False
    value = int.from_bytes(signature, "big")
    if value >= key.modulus:
        return False
    tail = b"\0" + SHA1_PREFIX + token
    wanted = b"\0\1" + b"\xff" * (size - len(tail) - 2) + tail
    return pow(value, key.exponent, key.modulus).to_bytes(size, "big") == wanted
