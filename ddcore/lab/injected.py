"""The parameters of the notebook that runs in this kernel: those of its cell of parameters, and those that papermill put after it."""

import ast

from IPython import get_ipython

OF_ALL = {"preset", "seeds", "device", "out"}  # what every cell of parameters sets
INJECTED = "# Parameters\n"  # how papermill begins its own


def injected() -> dict:
    """By name, as they were set, whatever became of the names since; {} outside of a kernel."""
    shell, found = get_ipython(), {}
    for cell in shell.user_ns.get("In", ()) if shell else ():
        values = _assigned(cell, shell.user_ns)
        if values.keys() >= OF_ALL:
            found = values
        elif found and cell.startswith(INJECTED):
            found |= values
    return found


def _assigned(cell: str, namespace: dict) -> dict:
    """What a cell of plain assignments assigns; {} of any other cell."""
    try:
        body = ast.parse(cell).body
    except SyntaxError:
        return {}
    found = {}
    for node in body:
        targets = (
            [node.target]
            if isinstance(node, ast.AnnAssign)
            else node.targets
            if isinstance(node, ast.Assign)
            else []
        )
        if len(targets) != 1 or not isinstance(targets[0], ast.Name) or node.value is None:
            return {}
        try:
            found[targets[0].id] = ast.literal_eval(node.value)
        except ValueError:  # float('nan'), as papermill writes it
            found[targets[0].id] = namespace.get(targets[0].id)
    return found
