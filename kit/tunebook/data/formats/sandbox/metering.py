"""A template's syntax tree in, the same tree out with calls of the sandbox wherever it can repeat or grow."""

from typing import Any

from jinja2 import nodes


def meter(tree: nodes.Template) -> None:
    """Have everything in a template that can repeat or grow, and is no operator, call or filter, charged for."""
    for node in [tree, *tree.find_all(nodes.Node)]:
        if isinstance(node, nodes.For | nodes.Macro | nodes.CallBlock | nodes.Block):
            node.body.insert(0, nodes.ExprStmt(_asked("tick"), lineno=node.lineno))
        elif isinstance(node, nodes.Output):
            constant = sum(len(part.data) for part in node.nodes if isinstance(part, nodes.TemplateData))
            shown = [part if isinstance(part, nodes.TemplateData) else _asked("shown", part) for part in node.nodes]
            beside = _asked("shown", nodes.Const(""))
            node.nodes = [_with(beside, nodes.Const(constant)), *(_with(part, nodes.Const(0)) for part in shown)]
        elif isinstance(node, nodes.Concat):
            node.nodes = [_with(_asked("shown", part), nodes.Const(0)) for part in node.nodes]
        elif isinstance(node, nodes.Compare):
            node.expr = _asked("compared", node.expr)
            for operand in node.ops:
                operand.expr = _asked("compared", operand.expr)
        elif isinstance(node, nodes.Pair):
            node.key = _asked("compared", node.key)
        _wrap_slices(node)


def _wrap_slices(node: nodes.Node) -> None:
    """Have the slices among the children of a node charged for."""
    for name, value in list(node.iter_fields()):
        if isinstance(value, list):
            setattr(node, name, [_asked("sliced", child) if _is_slice(child) else child for child in value])
        elif _is_slice(value):
            setattr(node, name, _asked("sliced", value))


def _is_slice(node: Any) -> bool:
    return isinstance(node, nodes.Getitem) and isinstance(node.arg, nodes.Slice) and node.ctx == "load"


def _asked(name: str, *args: nodes.Expr) -> nodes.Call:
    """A call of a method of the sandbox."""
    line = args[0].lineno if args else 1
    return nodes.Call(nodes.EnvironmentAttribute(name), list(args), [], None, None, lineno=line)


def _with(node: nodes.Expr, arg: nodes.Expr) -> nodes.Expr:
    """A call made by `_asked` with one more argument; another node as it is."""
    if isinstance(node, nodes.Call) and isinstance(node.node, nodes.EnvironmentAttribute) and len(node.args) == 1:
        node.args.append(arg)
    return node
