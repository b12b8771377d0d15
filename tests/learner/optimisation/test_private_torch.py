"""PyTorch's private interfaces: used in one folder only, and each does what it is used for.

When a test here fails after PyTorch has changed, it names the interface and the file that relies on it.
"""

from __future__ import annotations

import ast
from collections.abc import Callable
from pathlib import Path

import pytest
import torch
from torch import Tensor, fx

import learner
from learner.optimisation.optimizers import memory_for

ROOMS = Path(learner.__file__).parents[1]
FENCE = ROOMS / "learner" / "optimisation"
PRIVATE = {"_cdata", "_version", "_schema", "_overloadname", "_fused_adam_", "_fused_adamw_", "_pytree"}


def private_names(source: str) -> set[str]:
    """Private interfaces of PyTorch that a file names."""
    found = set()
    for node in ast.walk(ast.parse(source)):
        of_ours = isinstance(node, ast.Attribute) and isinstance(node.value, ast.Name) and node.value.id == "self"
        if isinstance(node, ast.Attribute) and node.attr in PRIVATE and not of_ours:
            found.add(node.attr)
        if isinstance(node, ast.ImportFrom) and (node.module or "").startswith("torch") and "._" in (node.module or ""):
            found.add(node.module or "")
    return found


def test_they_are_used_in_one_folder_only() -> None:
    files = [path for room in ("actors", "learner", "serve", "tune_configs") for path in (ROOMS / room).rglob("*.py")]
    found = {path: private_names(path.read_text()) for path in files}
    assert len(files) > 100
    assert not {str(path): names for path, names in found.items() if names and FENCE not in path.parents}
    assert any(found[path] for path in found if FENCE in path.parents)


def fused_adam() -> bool:
    """The fused kernels step as torch.optim does."""
    start, gradient = torch.tensor([1.0, -2.0]), torch.tensor([0.5, 0.25])
    ours, memory = start.clone(), memory_for(start)
    step = memory["step"].add_(1)
    betas = {"beta1": 0.9, "beta2": 0.999, "weight_decay": 0.0, "eps": 1e-8, "amsgrad": False, "maximize": False}
    lists = ([ours], [gradient], [memory["mean"]], [memory["square"]], [], [step])
    torch._fused_adam_(*lists, lr=torch.tensor(0.1), **betas)
    theirs = torch.nn.Parameter(start.clone())
    theirs.grad = gradient
    torch.optim.Adam([theirs], lr=0.1).step()
    return bool(torch.allclose(ours, theirs)) and callable(torch._fused_adamw_)


def dispatch() -> bool:
    """Operations below autograd are seen, with their schemas."""
    from torch.utils._python_dispatch import TorchDispatchMode

    seen = []

    class Seen(TorchDispatchMode):
        @classmethod
        def _should_skip_dynamo(cls) -> bool:
            return False

        def __torch_dispatch__(self, func, types, args=(), kwargs=None):  # type: ignore[no-untyped-def]
            seen.append(func)
            return func(*args, **(kwargs or {}))

    with Seen():
        torch.zeros(2).add_(1.0)
    add = seen[-1]
    writes = [bool(argument.alias_info and argument.alias_info.is_write) for argument in add._schema.arguments]
    return add._schema.is_mutable and writes[0] and not any(writes[1:])


def function_mode() -> bool:
    """A tensor's value that Python reads is seen, and what read it is named."""
    from torch.overrides import TorchFunctionMode, resolve_name

    seen = []

    class Seen(TorchFunctionMode):
        def __torch_function__(self, func, types, args=(), kwargs=None):  # type: ignore[no-untyped-def]
            seen.append(resolve_name(func))
            return func(*args, **(kwargs or {}))

    with Seen():
        bool(torch.ones(()) > 0)
    return "torch.Tensor.__bool__" in seen


def storage() -> bool:
    """Views share what tells one tensor's memory from another's; its version counts changes in place."""
    whole = torch.zeros(4)
    same = whole[1:].untyped_storage()._cdata == whole.untyped_storage()._cdata
    other = torch.zeros(4).untyped_storage()._cdata != whole.untyped_storage()._cdata
    before = whole._version
    whole.add_(1)
    return same and other and whole._version == before + 1


def operators() -> bool:
    """An operation tells its overload, whether it is a view, and that its outcome depends on values."""
    from torch._ops import OpOverload

    aten = torch.ops.aten
    views = [any(r.alias_info is not None for r in op._schema.returns) for op in (aten.view.default, aten.mul.Tensor)]
    reads = torch.Tag.data_dependent_output in aten._local_scalar_dense.default.tags
    shaped = torch.Tag.dynamic_output_shape in aten.nonzero.default.tags
    random = torch.Tag.nondeterministic_seeded in aten.rand_like.default.tags
    named = isinstance(aten.mul.Tensor, OpOverload) and aten.mul.Tensor._overloadname == "Tensor"
    return named and views == [True, False] and reads and shaped and random


def tracing() -> bool:
    """TorchScript takes a graph of operations down and replays it."""
    graph = fx.Graph()
    given = graph.placeholder("x")
    graph.output(graph.call_function(torch.ops.aten.mul.Tensor, (given, given)))
    module = fx.GraphModule(torch.nn.Module(), graph)
    traced: Callable[[Tensor], Tensor] = torch.jit.trace(module, torch.ones(2), check_trace=False).forward
    leaves = torch.utils._pytree.tree_leaves([torch.ones(1), (torch.ones(1), 3)])
    return traced(torch.tensor([3.0, 4.0])).tolist() == [9, 16] and len(leaves) == 3


@pytest.mark.filterwarnings("ignore::DeprecationWarning")
@pytest.mark.parametrize(
    ("works", "file"),
    [
        (fused_adam, "optimizers.py"),
        (dispatch, "operations.py"),
        (function_mode, "operations.py"),
        (storage, "operations.py and remembered.py"),
        (operators, "folding.py"),
        (tracing, "compiled.py"),
    ],
)
def test_each_does_what_it_is_used_for(works: Callable[[], bool], file: str) -> None:
    broken = f"PyTorch {torch.__version__} has otherwise what learner/optimisation/{file} relies on: {works.__doc__}"
    try:
        assert works(), broken
    except (AttributeError, ImportError, TypeError, RuntimeError) as error:
        pytest.fail(f"{broken} {type(error).__name__}: {error}")
