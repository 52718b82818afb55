"""`verify`: is the deploy network still the same function as the network that it was made from?

The stages and their order: preconditions; how exact fp32 is at all on these inputs; the algebra of the fuse in
float64; the deploy model's weights and fp32 outputs; what normalization is left; whether the check itself can
fail; exported files in their own runtimes; the contract of the fuse (the original untouched, fusing twice a
no-op).
"""

from __future__ import annotations

import copy
import platform
from collections.abc import Callable, Mapping
from types import MappingProxyType

import numpy as np
import torch
from torch import Tensor, nn

import finet_deploy
from finet_deploy.errors import FinetDeployError, UsageError
from finet_deploy.fuse import check_fusible, count_normalization, fuse
from finet_deploy.images import GOLDEN_PHOTOS, default_images, evaluation_inputs, preprocessing_for
from finet_deploy.verify import weights
from finet_deploy.verify.certificate import REQUIRED, Certificate, Check
from finet_deploy.verify.compare import compare
from finet_deploy.verify.forward import (
    as_dtype,
    check_inputs,
    execution_order,
    ordinary_inputs,
    require_finite_truth,
    run,
    summarize,
)
from finet_deploy.verify.limits import Limits
from finet_deploy.verify.sensitivity import check_breaks, check_distinct_outputs
from finet_deploy.verify.stages import (
    Artifact,
    check_algebra,
    check_artifact,
    check_conditioning,
    check_deploy,
    check_fp32,
    check_normalization,
)
from finet_deploy.verify.subject import Deploy, Fuse, Subject

__all__ = ["prove", "verify"]


def verify(
    model: nn.Module,
    deploy: nn.Module | None = None,
    *,
    inputs: Mapping[str, Tensor] | None = None,
    artifacts: Mapping[str, Artifact] = MappingProxyType({}),
    limits: Limits | None = None,
    fuse_fn: Fuse = fuse,
    subject: str | None = None,
    progress: Callable[[str], None] | None = None,
) -> Certificate:
    """Check that `model`, its fused form and its exported files are one function, and certify the result.

    model: the unfused network, in eval mode; it is never changed. deploy: its fused form; without one,
    `fuse_fn` makes it. inputs: name -> (N, C, H, W), such as `evaluation_inputs(photos)`; by default that, of the
    package's photographs as a network of `create_model` or `load_checkpoint` takes them. artifacts: name of
    a format -> a callable that runs the exported file on one input and returns its output. limits: by default
    `Limits()`, which gives the reason of each. subject: what the certificate calls the model.
    progress: told each stage as it begins.

    A failed check does not raise: read `certificate.passed`. Raises UsageError for a model in train mode or
    without running statistics (named by dotted path) and for unusable inputs, FinetDeployError for weights or
    float64 outputs that are not finite. Networks run on the CPU.
    """
    return prove(
        model,
        deploy,
        inputs=_default_inputs(model) if inputs is None else inputs,
        artifacts=artifacts,
        limits=limits,
        fuse_fn=fuse_fn,
        subject=subject,
        progress=progress,
    )[0]


def prove(
    model: nn.Module,
    deploy: nn.Module | None,
    *,
    inputs: Mapping[str, Tensor],
    artifacts: Mapping[str, Artifact] = MappingProxyType({}),
    limits: Limits | None = None,
    fuse_fn: Fuse = fuse,
    subject: str | None = None,
    progress: Callable[[str], None] | None = None,
) -> tuple[Certificate, dict[str, Tensor]]:
    """`verify`, and the truth that it found: the unfused network's float64 outputs by input."""
    limits = limits or Limits()
    tell = progress or (lambda _stage: None)
    tell("preconditions")
    check_inputs(inputs)
    checks = [_check_preconditions(model, deploy)]
    tell("algebra")
    fuse_fn = _with_example(next(iter(inputs.values()))) if fuse_fn is fuse else fuse_fn
    common, contract = _fold(model, inputs, fuse_fn, limits)
    checks += [check_conditioning(common), check_algebra(common)]
    forms = _deploy_forms(model, deploy, common)
    tell("deploy model")
    checks += check_deploy(common, forms)
    tell("fp32")
    checks += [check_fp32(common, forms), check_normalization(common, forms)]
    tell("sensitivity")
    checks += [check_distinct_outputs(common), *check_breaks(common)]
    for name, artifact in artifacts.items():
        tell(f"artifact {name}")
        checks.append(check_artifact(name, artifact, common))
    certificate = Certificate(
        subject=subject or _name_of(model),
        expected=_expected(artifacts),
        checks=(*checks, *contract),
        versions=_versions(),
        inputs=summarize(inputs),
    )
    return certificate, dict(common.truth)


def _default_inputs(model: nn.Module) -> Mapping[str, Tensor]:
    config = getattr(model, "model_config", None)
    if config is None:
        raise UsageError("nothing says what this network's input is", do="give inputs")
    return evaluation_inputs(default_images(GOLDEN_PHOTOS, preprocessing_for(config, model)))


def _name_of(model: nn.Module) -> str:
    config = getattr(model, "model_config", None)
    return str(getattr(config, "name", type(model).__name__))


def _expected(artifacts: Mapping[str, Artifact]) -> tuple[str, ...]:
    contract = tuple(name for name in REQUIRED if name.startswith("contract/"))
    before = tuple(name for name in REQUIRED if name not in contract)
    return (*before, *(f"artifact/{name}" for name in artifacts), *contract)


def _versions() -> dict[str, str]:
    return {
        "finet-deploy": finet_deploy.__version__,
        "python": platform.python_version(),
        "torch": str(torch.__version__),
        "numpy": np.__version__,
    }


def _check_preconditions(model: nn.Module, deploy: nn.Module | None) -> Check:
    check_fusible(model)
    if deploy is not None:
        try:
            check_fusible(deploy)
        except FinetDeployError as error:
            raise type(error)(f"deploy model: {error.message}", where=error.where, do=error.do) from error
    return Check(
        name="preconditions",
        stage="preconditions",
        passed=True,
        message="eval mode, running statistics present, weights finite",
        figures={
            "parameters": sum(parameter.numel() for parameter in model.parameters()),
            "normalizations": len(count_normalization(model)),
        },
    )


def _with_example(x: Tensor) -> Fuse:
    """`fuse`, shown an input in the model's dtype: it proves folds that a call graph without shapes cannot."""

    def fuse_with_example(model: nn.Module) -> nn.Module:
        floating = (parameter.dtype for parameter in model.parameters() if parameter.is_floating_point())
        example = x.detach().cpu()[:1]
        return fuse(model, example_inputs=(example.to(next(floating, example.dtype)),))

    return fuse_with_example


def _fold(
    model: nn.Module, inputs: Mapping[str, Tensor], fuse_fn: Fuse, limits: Limits
) -> tuple[Subject, list[Check]]:
    """The float64 forms and their outputs, and the contract of the fuse, seen on the way."""
    exact = as_dtype(model, torch.float64)
    truth = run(exact, inputs, torch.float64)
    require_finite_truth(truth)
    before = weights.fingerprint(exact)
    fold = fuse_fn(exact)
    untouched = fold is not exact and weights.fingerprint(exact) == before
    if not untouched:  # the rest still has to be judged against the network as it was
        exact = as_dtype(model, torch.float64)
    contract = [
        Check(
            name="contract/original_unchanged",
            stage="contract",
            passed=untouched,
            message="fusing left the original as it was"
            if untouched
            else "fusing changed the original model",
        ),
        _check_idempotent(fold, fuse_fn),
    ]
    order = execution_order(fold, next(iter(inputs.values())))
    own = compare(truth, run(as_dtype(model, torch.float32), inputs, torch.float32))
    own_errors = own.typical_errors()
    ordinary = ordinary_inputs(inputs)  # held to the limits as they are; extremes may be worse than those
    growth = {name: limits.fp32_growth(error) for name, error in own_errors.items() if name not in ordinary}
    common = Subject(exact, fold, fuse_fn, inputs, truth, order, limits, own, own_errors, growth)
    return common, contract


def _check_idempotent(fold: nn.Module, fuse_fn: Fuse) -> Check:
    same = weights.same_state(fold, fuse_fn(copy.deepcopy(fold)))
    return Check(
        name="contract/idempotent",
        stage="contract",
        passed=same,
        message="fusing twice changes nothing more" if same else "fusing the fused model changes it again",
    )


def _deploy_forms(model: nn.Module, deploy: nn.Module | None, common: Subject) -> Deploy:
    single = as_dtype(model, torch.float32) if deploy is None else deploy
    made = common.fuse_fn(single) if deploy is None else deploy
    return Deploy(deploy, as_dtype(made, torch.float64), as_dtype(made, torch.float32))
