"""The limits of a certificate, each with the reason for its number."""

from __future__ import annotations

import msgspec

from finet_deploy.errors import UsageError

__all__ = ["FP32_EPS", "LOWER", "Limits"]

FP32_EPS = 2.0**-23
LOWER = {"int8": "int8_sqnr_db", "float16": "fp16_sqnr_db"}  # precisions below fp32, and their limits


class Limits(msgspec.Struct, frozen=True, kw_only=True):
    """Norm-relative limits; every one must be positive. Raises UsageError otherwise.

    algebra_fp64: fused against unfused in float64. A right fold is 6e-16 off per layer and 1e-14 after a
        hundred; the smallest wrong one (eps left out beside a variance of 1) is 5e-6 off. 1e-12 lies between
        with room on both sides.
    fp32: the fp32 net against the float64 truth. A right fused net of 20 residual layers is 2e-7 to 8e-7 off,
        by rounding alone. 1e-5 never flakes and is a hundred times below what changes a class.
    fp32_multiple: and not above this multiple of what the unfused net itself is off. Both are sums of the
        same length with other roundings, so the ratio lies near 1; folding often makes it smaller.
    fp32_floor: below this error the ratio is not asked. 16 units of fp32 rounding (1.9e-6): a shallow unfused
        net can be right to the last bit by chance, and no multiple of nothing can be met.
    artifact: an exported fp32 file in its own runtime, against the float64 truth. Measured 4e-8 to 2.4e-7.
    extremes: on an ordinary input (noise, pictures) the unfused fp32 net itself has to keep `fp32`: a network that
        does not is too ill-conditioned for any fp32 form. On an extreme one (zeros, large, denormal) it may not,
        where gates saturate far outside of what it was made for; there the fp32 limits grow to `fp32_multiple`
        times what the unfused net is off, and the certificate lists every limit that grew.
    sensitivity_factor: outputs of different inputs must lie at least this many `fp32` limits apart (1e-3).
        Measured 0.03 to 0.6 on networks that work; where statistics make a net constant, 4e-8, and then every
        check passes on anything.
    weight_slack: an element of a folded tensor may differ from the float64 fold by one rounding of its own
        dtype, plus this share of the tensor's largest element. A bias is a sum whose terms may cancel; the
        order of that sum is free, and each order leaves some float64 roundings (1e-16) of its largest term.
    int8_sqnr_db: least SQNR (20 log10 of signal over error), median over the photographs, of a file in int8.
        Measured: 38 dB for Finet-large (untrained), 27 and 29 dB for the trained digits network (ONNX
        Runtime, ExecuTorch), whose top-1 loses none and one of 359 images.
    fp16_sqnr_db: the same in fp16. Measured for the trained digits network: 59 dB on x86, 48 to 56 dB on an emulated
        Cortex-A76.
    lower_multiple: on every input a file below fp32 may be at most this much further off on another machine than
        where it was exported: a level rounded otherwise here and there, not another function. In fp16 up to
        `fp16_sqnr_db` in any case: ARM processors round sums to fp16, x86 processors do not.
    """

    algebra_fp64: float = 1e-12
    fp32: float = 1e-5
    fp32_multiple: float = 4.0
    fp32_floor: float = 16 * FP32_EPS
    artifact: float = 1e-5
    sensitivity_factor: float = 100.0
    weight_slack: float = 1e-13
    int8_sqnr_db: float = 20.0
    fp16_sqnr_db: float = 40.0
    lower_multiple: float = 2.0

    def sqnr_db(self, dtype: str) -> float:
        """Least SQNR of a file in `dtype`. UsageError for one without a limit."""
        return float(getattr(self, _sqnr_field(dtype)))

    def with_sqnr_db(self, dtype: str, least: float) -> Limits:
        """A copy with another one. UsageError for a precision without a limit, and where it is not positive."""
        return msgspec.structs.replace(self, **{_sqnr_field(dtype): least})

    def lower_floor(self, dtype: str) -> float:
        """The relative error that a file in `dtype` may have on any machine, whatever it was where it was exported.

        UsageError for a precision without a limit.
        """
        _sqnr_field(dtype)
        return 10.0 ** (-self.fp16_sqnr_db / 20.0) if dtype == "float16" else self.artifact

    def fp32_growth(self, own_error: float) -> float:
        """Factor (1 as a rule) on fp32 limits of an input where the unfused fp32 net is `own_error` off."""
        return max(1.0, self.fp32_multiple * own_error / self.fp32)

    def fp64_growth(self, own_error: float) -> float:
        """The same for the float64 limit: its rounding is 2**29 times finer. 1 up to an error of 1e-4."""
        return max(1.0, self.fp32_multiple * own_error * 2.0**-29 / self.algebra_fp64)

    def __post_init__(self) -> None:
        for name in self.__struct_fields__:
            if not 0.0 < getattr(self, name) < float("inf"):
                raise UsageError(f"limit {name}={getattr(self, name)} is not a positive number")


def _sqnr_field(dtype: str) -> str:
    if dtype not in LOWER:
        raise UsageError(f"no limit for files in {dtype}", do=f"use float32, {' or '.join(LOWER)}")
    return LOWER[dtype]
