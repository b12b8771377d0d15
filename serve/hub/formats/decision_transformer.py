"""transformers' ``DecisionTransformerModel`` as a network of ours: its configuration, and its weights by our names."""

from __future__ import annotations

import dataclasses
import functools
import math
import re
from collections.abc import Mapping
from typing import TYPE_CHECKING, Any, TypeVar

from actors.episode import Array
from actors.errors import UserError, printable
from actors.gpt2 import GPT2
from serve.hub.formats.tensors import as_weights

if TYPE_CHECKING:
    import torch

_T = TypeVar("_T", bool, int, float, str)
_KINDS = {bool: "true or false", int: "a whole number", float: "a number", str: "a name"}
_WINDOW = 20
"""``max_length`` where a configuration does not say: that of all configurations of transformers before version 5."""
_NOT_ACTING = re.compile(
    r"encoder\.wte\.weight|predict_(?:state|return)\..*"
    r"|encoder\.h\.\d+\.(?:attn\.(?:masked_)?bias|(?:ln_cross_attn|crossattention)\..*)"
)
"""What it has and actions do not depend on: an empty vocabulary, other predictions, masks, attention to nothing."""
_FIRST_POSITION = "encoder.wpe.weight"
"""Embeddings of positions, of which it gives all tokens the first."""
_TURNED = {
    **{f"embed_{name}": f"core_{name}" for name in ("return", "state", "action")},
    "predict_action.0": "core_head",
}
"""Layers of ours by theirs whose weights are [out, in]."""
_BLOCK = {"attn.c_attn": "heads", "attn.c_proj": "joined", "mlp.c_fc": "wide", "mlp.c_proj": "narrow"}
"""Layers of a block whose weights are [in, out]."""
_BLOCK_NORMALISATIONS = {"ln_1": "attend", "ln_2": "feed"}


@dataclasses.dataclass(frozen=True)
class DecisionTransformer:
    """What a config.json says of such a model, by its own names."""

    state_dim: int
    act_dim: int
    hidden_size: int
    n_layer: int
    n_head: int
    n_positions: int
    scale_attn_weights: bool
    scale_attn_by_inverse_layer_idx: bool
    gpt2: GPT2
    window: int
    """Steps that it attends to: its ``max_length``."""
    version: str | None
    """The version of transformers that saved it; None: its file does not say."""

    @property
    def network(self) -> dict[str, Any]:
        """Fields of PolicyNetwork."""
        return {
            "hidden_sizes": (),
            "normalize_observations": True,
            "memory": "gpt2",
            "memory_size": self.hidden_size,
            "memory_layers": self.n_layer,
            "memory_heads": self.n_head,
            "memory_window": self.window,
            "gpt2": self.gpt2,
        }

    def weights(self, state: Mapping[str, torch.Tensor], shapes: Mapping[str, tuple[int, ...]]) -> dict[str, Array]:
        """The core's weights, but for those that no checkpoint has.

        Args:
            state: its tensors.
            shapes: of a policy's weights, by their names.

        Raises:
            UserError: a tensor is missing, unknown or misshapen.
        """
        names = self._names()
        expected = {theirs: shapes[ours][::-1] if turned else shapes[ours] for theirs, (ours, turned) in names.items()}
        expected[_FIRST_POSITION] = (self.n_positions, self.hidden_size)
        given = {name: tensor for name, tensor in state.items() if not _NOT_ACTING.fullmatch(str(name))}
        for name in sorted({*expected, *given}, key=str):
            has = tuple(given[name].shape) if name in given else "missing"
            if has != expected.get(name):
                needs = f"config.json needs {expected[name]}" if name in expected else "config.json has no place for it"
                raise UserError(f"weights do not fit: {str(name)[:200]} is {has}, {needs}")
        arrays = as_weights(given, "the checkpoint", "policy")
        weights = {ours: arrays[theirs].T if turned else arrays[theirs] for theirs, (ours, turned) in names.items()}
        weights["core_token_shift"] += arrays[_FIRST_POSITION][0]
        for i in range(self.n_layer):
            scale = 1.0 if self.scale_attn_weights else math.sqrt(self.hidden_size / self.n_head)
            scale /= i + 1 if self.scale_attn_by_inverse_layer_idx else 1
            for kind in "wb":
                weights[f"core_{i}_heads_{kind}"][..., : self.hidden_size] *= scale  # of the queries
        return weights

    def _names(self) -> dict[str, tuple[str, bool]]:
        """The names of ours by theirs, and whether they are transposed."""
        layers: dict[str, str] = {}
        norms = {"embed_ln": "core_token", "encoder.ln_f": "core"}
        for i in range(self.n_layer):
            layers |= {f"encoder.h.{i}.{theirs}": f"core_{i}_{ours}" for theirs, ours in _BLOCK.items()}
            norms |= {f"encoder.h.{i}.{theirs}": f"core_{i}_{ours}" for theirs, ours in _BLOCK_NORMALISATIONS.items()}
        names = {"embed_timestep.weight": ("core_time", False)}
        for theirs, ours in {**_TURNED, **layers}.items():
            names |= {f"{theirs}.weight": (f"{ours}_w", theirs in _TURNED), f"{theirs}.bias": (f"{ours}_b", False)}
        for theirs, ours in norms.items():
            names |= {f"{theirs}.weight": (f"{ours}_scale", False), f"{theirs}.bias": (f"{ours}_shift", False)}
        return names


def read_decision_transformer(config: dict[str, Any], window: int | None = None) -> DecisionTransformer:
    """What a config.json means; what it does not say is as in ``DecisionTransformerConfig``.

    Args:
        config: its contents.
        window: steps that the model attends to; None: what it says.

    Raises:
        UserError: it is of another model, or damaged.
    """
    if config.get("model_type") != "decision_transformer":
        kind = str(config.get("model_type"))[:100]
        raise UserError(f"config.json is of a model {kind!r}; what can be imported is a decision_transformer")
    take = functools.partial(_value, config)
    hidden_size, version = take("hidden_size", 128), config.get("transformers_version")
    if window is None:
        window = _WINDOW if config.get("max_length") is None else take("max_length", _WINDOW)
    try:
        gpt2 = GPT2(
            n_inner=4 * hidden_size if config.get("n_inner") is None else take("n_inner", 0),
            max_ep_len=take("max_ep_len", 4096),
            activation_function=take("activation_function", "relu"),
            layer_norm_epsilon=take("layer_norm_epsilon", 1e-5),
            action_tanh=take("action_tanh", True),
        )
    except UserError as error:
        raise UserError(f"config.json: {error}") from error
    return DecisionTransformer(
        state_dim=take("state_dim", 17),
        act_dim=take("act_dim", 4),
        hidden_size=hidden_size,
        n_layer=take("n_layer", 3),
        n_head=take("n_head", 1),
        n_positions=take("n_positions", 1024),
        scale_attn_weights=take("scale_attn_weights", True),
        scale_attn_by_inverse_layer_idx=take("scale_attn_by_inverse_layer_idx", False),
        gpt2=gpt2,
        window=window,
        version=printable(version)[:20] if isinstance(version, str) else None,
    )


def _value(config: dict[str, Any], name: str, default: _T) -> _T:
    """A value of the default's own type."""
    value, kind = config.get(name, default), type(default)
    if kind is float and type(value) is int:
        value = float(value)
    if type(value) is not kind or (isinstance(value, int) and not 0 <= value < 2**31):
        raise UserError(f"config.json is damaged: its {name} must be {_KINDS[kind]}, not {str(value)[:40]!r}")
    return value
