"""Takes the operations out of the regions that torch.export keeps apart: `with torch.no_grad():`, `with torch.autocast(enabled=False):`."""

from __future__ import annotations

from torch import fx

from cosparse.compress.importer.names import base

AUTOCAST, GRADIENTS = "wrap_with_autocast", "wrap_with_set_grad_enabled"

REASONS = {AUTOCAST: "a part that runs under torch.autocast: leave that to the code that calls the model"}


def opened(module: fx.GraphModule) -> None:
    """Puts the operations of each region that changes no result in its place, in the module's own graph."""
    graph = module.graph
    for node in list(graph.nodes):
        at = _subgraph(node)
        if at is None:
            continue
        inner = getattr(module, node.args[at].target)
        opened(inner)
        values: dict[fx.Node, fx.Node] = {}
        given = iter(node.args[at + 1 :])
        for part in inner.graph.nodes:
            if part.op == "placeholder":
                values[part] = next(given)
            elif part.op == "output":
                results = fx.map_arg(part.args[0], values.__getitem__)
            else:
                with graph.inserting_before(node):
                    values[part] = graph.node_copy(part, values.__getitem__)
                if part.op == "get_attr":  # the subgraph of a region that stays
                    values[part].target = name = f"{node.name}_{part.target}"
                    setattr(module, name, getattr(inner, str(part.target)))
        for item in list(node.users):
            item.replace_all_uses_with(results[item.args[1]])
            graph.erase_node(item)
        graph.erase_node(node)
    module.recompile()


def _subgraph(node: fx.Node) -> int | None:
    """The place of a region's graph among the arguments, behind it the graph's own; None for any other operation."""
    name = base(node.target) if node.op == "call_function" else ""
    if name == GRADIENTS:
        return 1
    enabled = name == AUTOCAST and node.args[2]
    return 4 if name == AUTOCAST and not enabled else None
