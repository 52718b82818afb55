"""Checkpoints: trained weights plus the network's configuration, safe to load.

Ours are safetensors files; the configuration and the preprocessing are JSON in their metadata, under the key
`finet_deploy`. Others (`.pt`, `.pth`) are read through `torch.load(weights_only=True)` and nothing else: a pickle
with code in it is refused, not run.
"""

from __future__ import annotations

import json
import pickle
from collections.abc import Mapping
from pathlib import Path
from typing import TYPE_CHECKING, Any

import torch
from safetensors import SafetensorError, safe_open
from safetensors.torch import save as safetensors_save
from torch import Tensor, nn

from finet_deploy.errors import FinetDeployError, UsageError, suggest
from finet_deploy.files import atomic_write_bytes, sha256_file
from finet_deploy.fuse import fuse
from finet_deploy.names import ModelConfig
from finet_deploy.nn.mimicnorm import baked_state_dict, keep_stored_scales
from finet_deploy.zoo import create_from_config, set_origin

if TYPE_CHECKING:
    from finet_deploy.images import Preprocessing

__all__ = ["load_checkpoint", "save_checkpoint"]

SCHEMA_VERSION = 1
METADATA_KEY = "finet_deploy"
# What training scripts wrap around a network, outermost first: DataParallel and DDP, torch.compile, EMA
# helpers, Lightning. Stripped only when every key has the prefix.
PREFIXES = ("module.", "_orig_mod.", "ema_model.", "ema.", "model.")
EMA_CONTAINERS = ("state_dict_ema", "model_ema", "ema_state_dict")
PLAIN_CONTAINERS = ("state_dict", "model_state_dict", "model", "module")
LISTED = 5  # names listed in an error before "and N more"
METADATA_LIMIT = 1_000_000  # characters of JSON


def save_checkpoint(
    model: nn.Module,
    path: Path | str,
    *,
    config: ModelConfig | None = None,
    preprocessing: Preprocessing | None = None,
    training: dict[str, Any] | None = None,
    trained: bool | None = None,
) -> Path:
    """Write weights, configuration and preprocessing of `model` as a safetensors file at `path`, whole or not at all.

    `config` defaults to the one that `create_model` left on the network. A fused network is stored in its deploy
    form and comes back in it; re-parametrized weights are stored as the weights that they stand for.
    training: what is known of the run that made the weights (recipe, dataset, accuracy), free-form but JSON; it
    comes back as `weights_origin["training"]`. It, `trained` and `preprocessing` default to what the network's origin
    says.
    Raises UsageError when the configuration is unknown or `training` is not JSON or too long.
    """
    path = Path(path)
    config = config or getattr(model, "model_config", None)
    if config is None:
        raise UsageError("this network has no configuration", do="pass config=ModelConfig(name=...)")
    if path.suffix != ".safetensors":
        raise UsageError(f"checkpoints are written as .safetensors, not {path.suffix!r}", where=str(path))
    origin = getattr(model, "weights_origin", {})
    metadata = {
        "schema_version": SCHEMA_VERSION,
        "model_config": config.to_json_object(),
        "preprocessing": preprocessing.to_json_object() if preprocessing else origin.get("preprocessing"),
        "deploy": hasattr(model, "fuse_report"),
        "trained": origin.get("trained") if trained is None else trained,
        "training": origin.get("training") if training is None else training,
    }
    text = _metadata_text(metadata, path)
    # Cloned: safetensors refuses tensors that share memory, and tied weights are legal in a state dict.
    tensors = {
        name: tensor.detach().cpu().contiguous().clone() for name, tensor in baked_state_dict(model).items()
    }
    atomic_write_bytes(path, safetensors_save(tensors, {METADATA_KEY: text}))
    return path


def _metadata_text(metadata: dict[str, Any], path: Path) -> str:
    try:
        text = json.dumps(metadata, sort_keys=True, allow_nan=False)
    except (TypeError, ValueError, RecursionError) as error:
        raise UsageError(
            f"training={{...}} cannot be written as JSON: {error}",
            where=str(path),
            do="give strings, finite numbers, booleans, lists and dictionaries",
        ) from error
    if len(text) > METADATA_LIMIT:
        raise UsageError(
            f"the metadata has {len(text)} characters, more than {METADATA_LIMIT}",
            where=str(path),
            do="keep the run's long records in files of their own",
        )
    return text


def load_checkpoint(path: Path | str, config: ModelConfig | None = None, *, strict: bool = True) -> nn.Module:
    """The network in the file at `path`, in eval mode, with `.model_config` and `.weights_origin` set.

    Our own files say what network they hold; for a plain state dict give `config` (see `resolve_config`).
    DataParallel, torch.compile, EMA and Lightning prefixes are taken off; when the file holds an EMA beside the
    raw weights, the EMA is taken. What was done is listed in `weights_origin["notes"]`.

    strict=False loads what fits and notes the rest. A shape that differs is always an error.
    Raises FinetDeployError for a missing, truncated or foreign file and for weights that do not fit or are not
    finite; UsageError when the configuration is missing or contradicts the file.
    """
    path = Path(path)
    if not path.is_file():
        raise FinetDeployError("no such checkpoint", where=str(path), do="check the path")
    raw, metadata = _read_safetensors(path) if path.suffix == ".safetensors" else _read_pickle(path)
    notes: list[str] = []
    state = _unwrap(raw, path, notes)
    config = _choose_config(config, metadata, path)
    model = create_from_config(config).eval()
    if metadata.get("deploy"):
        keep_stored_scales(model, state)
        model = fuse(model)
    _load(model, config.title, state, path, strict, notes)
    origin = {
        "kind": "checkpoint",
        "path": path.name,
        "sha256": sha256_file(path),
        "trained": metadata.get("trained"),
        "preprocessing": metadata.get("preprocessing"),
        "training": metadata.get("training"),
        "notes": notes,
    }
    set_origin(model, config, origin)
    return model


def _read_safetensors(path: Path) -> tuple[dict[str, Any], dict[str, Any]]:
    try:
        with safe_open(path, framework="pt") as stream:
            metadata = stream.metadata() or {}
            tensors = {name: stream.get_tensor(name) for name in stream.keys()}  # noqa: SIM118 (not a mapping)
    except (SafetensorError, OSError, ValueError) as error:
        raise FinetDeployError(
            f"truncated or not a safetensors file: {error}",
            where=str(path),
            do="copy or download the file again",
        ) from error
    own = metadata.get(METADATA_KEY)
    return tensors, _parse_metadata(own, path) if own else {}


def _parse_metadata(text: str, path: Path) -> dict[str, Any]:
    if len(text) > METADATA_LIMIT:
        raise FinetDeployError(
            f"metadata of {len(text)} characters", where=str(path), do="write the checkpoint again"
        )
    try:
        metadata = json.loads(text)
        version = metadata["schema_version"]
        if not isinstance(metadata.get("training") or {}, dict):
            raise TypeError("training is not an object")
    except (ValueError, TypeError, KeyError, RecursionError) as error:
        raise FinetDeployError(
            "unreadable metadata", where=str(path), do="write the checkpoint again"
        ) from error
    if version != SCHEMA_VERSION:
        raise FinetDeployError(
            f"checkpoint schema {version}, this tool reads {SCHEMA_VERSION}",
            where=str(path),
            do="use the finet-deploy release that wrote it",
        )
    return metadata


def _read_pickle(path: Path) -> tuple[dict[str, Any], dict[str, Any]]:
    try:
        raw = torch.load(path, map_location="cpu", weights_only=True)
    except pickle.UnpicklingError as error:
        raise FinetDeployError(
            f"the pickle holds more than tensors, or is damaged: {_first_line(error)}",
            where=str(path),
            do="save its state_dict() alone, or as .safetensors; code from a file is never run",
        ) from error
    except (RuntimeError, EOFError, OSError, ValueError, KeyError, AttributeError, IndexError) as error:
        raise FinetDeployError(
            f"truncated or not a checkpoint: {_first_line(error)}",
            where=str(path),
            do="copy the file again, or give a .safetensors, .pt or .pth file",
        ) from error
    if not isinstance(raw, Mapping):
        raise FinetDeployError(
            f"the file holds a {type(raw).__name__}, not a state dict",
            where=str(path),
            do="save model.state_dict()",
        )
    config = raw.get("model_config")
    return dict(raw), {"model_config": config} if isinstance(config, dict) else {}


def _first_line(error: BaseException) -> str:
    """torch explains `weights_only` at length in its message, with advice that we do not share."""
    text = str(error).strip()
    return text.splitlines()[0][:200] if text else type(error).__name__


def _unwrap(raw: dict[str, Any], path: Path, notes: list[str]) -> dict[str, Tensor]:
    """The state dict in a checkpoint, without the wrappers of training scripts."""
    ema = [key for key in EMA_CONTAINERS if isinstance(raw.get(key), Mapping)]
    plain = [key for key in PLAIN_CONTAINERS if isinstance(raw.get(key), Mapping)]
    if chosen := (ema or plain)[:1]:
        notes.append(
            f"weights taken from '{chosen[0]}'" + (f", not from '{plain[0]}'" if ema and plain else "")
        )
        raw = dict(raw[chosen[0]])
    raw.pop("n_averaged", None)  # torch.optim.swa_utils.AveragedModel's counter
    state = {name: value for name, value in raw.items() if isinstance(value, Tensor)}
    if not state:
        raise FinetDeployError(
            "the file holds no tensors by name", where=str(path), do="save model.state_dict()"
        )
    while prefix := next((p for p in PREFIXES if all(name.startswith(p) for name in state)), None):
        notes.append(f"prefix '{prefix}' taken off")
        state = {name.removeprefix(prefix): value for name, value in state.items()}
    return state


def _choose_config(config: ModelConfig | None, metadata: dict[str, Any], path: Path) -> ModelConfig:
    stored = metadata.get("model_config")
    if stored is None and config is None:
        raise UsageError(
            "the file holds weights but does not say of which network",
            where=str(path),
            do="give --model NAME",
        )
    if stored is None:
        assert config is not None  # narrows the type: one of the two is there
        return config
    own = ModelConfig.from_json_object(stored)
    if config is not None and config != own:
        raise UsageError(
            f"the checkpoint holds {own.title} ({own.num_classes} classes), not {config.title}"
            f" ({config.num_classes} classes)",
            where=str(path),
            do="leave the model options out",
        )
    return own


def _load(
    model: nn.Module, title: str, state: dict[str, Tensor], path: Path, strict: bool, notes: list[str]
) -> None:
    expected = model.state_dict()
    _refuse_shapes(title, expected, state, path)
    missing = [name for name in expected if name not in state and not name.endswith("num_batches_tracked")]
    unexpected = [name for name in state if name not in expected]
    if missing or unexpected:
        text = _key_report(missing, unexpected, expected)
        if strict:
            raise FinetDeployError(
                f"the weights do not fit {title}: {text}",
                where=str(path),
                do="check the model's name and options",
            )
        notes.append(f"loaded without strict: {text}")
    for name in state.keys() & expected.keys():
        if state[name].is_floating_point() and not bool(state[name].isfinite().all()):
            raise FinetDeployError(
                f"{name} holds NaN or infinite values", where=str(path), do="go back to a sound checkpoint"
            )
    widened = sorted(
        {str(t.dtype) for n, t in state.items() if n in expected and t.dtype != expected[n].dtype}
    )
    if widened:
        notes.append(f"stored as {', '.join(widened)}, loaded as {next(iter(expected.values())).dtype}")
    model.load_state_dict(state, strict=False)  # names and shapes were checked above, with better messages


def _refuse_shapes(
    title: str, expected: Mapping[str, Tensor], state: Mapping[str, Tensor], path: Path
) -> None:
    wrong = [name for name in expected if name in state and expected[name].shape != state[name].shape]
    if not wrong:
        return
    name = wrong[-1]  # the head comes last: a different number of classes is the commonest cause
    found, wanted = tuple(state[name].shape), tuple(expected[name].shape)
    classes = len(wrong) <= 2 and found[1:] == wanted[1:]
    raise FinetDeployError(
        f"{len(wrong)} of {len(expected)} tensors have another shape than in {title}: "
        f"{name} is {found} in the file, {wanted} in the network",
        where=str(path),
        do=f"give --num-classes {found[0]}" if classes else "check the model's name, --num-groups and --se",
    )


def _key_report(missing: list[str], unexpected: list[str], expected: Mapping[str, Tensor]) -> str:
    parts = []
    if missing:
        parts.append(f"{len(missing)} missing ({_listed(missing)})")
    if unexpected:
        hint = suggest(unexpected[0], expected, count=1)
        parts.append(f"{len(unexpected)} unexpected ({_listed(unexpected)})" + (f"; {hint}" if hint else ""))
    return ", ".join(parts)


def _listed(names: list[str]) -> str:
    rest = len(names) - LISTED
    return ", ".join(names[:LISTED]) + (f" and {rest} more" if rest > 0 else "")
