"""Which names the cells of a notebook assign, from IPython's history."""

import ast
import warnings
from collections.abc import Collection, Sequence

# What is assigned in there is not assigned by a cell.
_SCOPES = (ast.FunctionDef, ast.AsyncFunctionDef, ast.ClassDef, ast.Lambda, ast.ListComp, ast.SetComp)
_SCOPES += (ast.DictComp, ast.GeneratorExp)


def assigned_names(cells: Sequence[str], own: Collection[str]) -> tuple[set[str], set[str]]:
    """Names that the parameters cell, and the last one that papermill injected after it, assign."""
    injected = set()
    for cell in map(str, reversed(cells)):
        assigned, typed = _assigned(cell)
        if not typed.isdisjoint(own):
            return assigned, injected
        if cell.startswith("# Parameters\n"):
            injected = injected or assigned
    return set(), injected


def _assigned(cell: str) -> tuple[set[str], set[str]]:
    """Names that a cell assigns, and those of them with a type; none where it is not Python."""
    names, typed, nodes = set(), set(), _statements(cell)
    while nodes:
        node = nodes.pop()
        if isinstance(node, _SCOPES) or (isinstance(node, ast.AnnAssign) and node.value is None):
            continue
        if isinstance(node, ast.AnnAssign) and isinstance(node.target, ast.Name):
            typed.add(node.target.id)
        if isinstance(node, ast.Name) and isinstance(node.ctx, ast.Store):
            names.add(node.id)
        nodes += ast.iter_child_nodes(node)
    return names, typed


def _statements(cell: str) -> list[ast.AST]:
    """What IPython ran; of a cell with a magic such as %%time, what stands below that."""
    try:
        with warnings.catch_warnings(action="ignore"):  # such as that of "C:\em"
            statements = ast.parse(cell).body
    except (SyntaxError, ValueError, RecursionError, MemoryError):
        return []
    match statements:
        case [
            ast.Expr(
                ast.Call(ast.Attribute(attr="run_cell_magic"), [ast.Constant(name), _, ast.Constant(body)])
            )
        ]:
            return _statements(body) if name in ("capture", "prun", "time") else []
    return statements
