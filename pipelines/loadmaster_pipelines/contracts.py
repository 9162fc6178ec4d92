"""Contracts: conditions over configurations, evaluated by walking a small part of Python's grammar.

What is understood: names of tasks, their fields, literals, `and or not`, comparisons, arithmetic without
powers, indexing, conditional expressions, and the functions listed below. Nothing else runs.
"""

import ast
import operator
from collections.abc import Callable, Mapping, Sequence
from typing import Any

from loadmaster_registry.errors import PipelineError, did_you_mean

from .pipeline import Contract

_BINARY: Mapping[type[ast.operator], Callable[[Any, Any], Any]] = {
    ast.Add: operator.add,
    ast.Sub: operator.sub,
    ast.Mult: operator.mul,
    ast.Div: operator.truediv,
    ast.FloorDiv: operator.floordiv,
    ast.Mod: operator.mod,
    ast.BitAnd: operator.and_,
    ast.BitOr: operator.or_,
    ast.BitXor: operator.xor,
}
_COMPARE: Mapping[type[ast.cmpop], Callable[[Any, Any], bool]] = {
    ast.Eq: operator.eq,
    ast.NotEq: operator.ne,
    ast.Lt: operator.lt,
    ast.LtE: operator.le,
    ast.Gt: operator.gt,
    ast.GtE: operator.ge,
    ast.Is: operator.is_,
    ast.IsNot: operator.is_not,
    ast.In: lambda a, b: a in b,
    ast.NotIn: lambda a, b: a not in b,
}
_UNARY: Mapping[type[ast.unaryop], Callable[[Any], Any]] = {
    ast.Not: operator.not_,
    ast.USub: operator.neg,
    ast.UAdd: operator.pos,
}
_FUNCTIONS: Mapping[str, Callable[..., Any]] = {
    f.__name__: f for f in (abs, all, any, bool, float, int, len, max, min, round, set, sorted, str, sum)
}
_SEQUENCES: Mapping[type[ast.expr], Callable[[list[Any]], Any]] = {
    ast.List: list,
    ast.Tuple: tuple,
    ast.Set: set,
}


class _Unclear(Exception):  # noqa: N818 (never leaves this module)
    """What is wrong, and what to do."""


def check_contract(contract: Contract, configs: Mapping[str, Mapping[str, Any]], where: str) -> None:
    """Refuse the pipeline if `contract` does not hold.

    Parameters
    ----------
    configs : mapping
        For each task label its resolved configuration; mappings inside are reached by dots.

    Raises
    ------
    PipelineError
        If the contract is false, or cannot be understood.
    """
    try:
        holds = _value(ast.parse(contract.expression.strip(), mode="eval").body, configs)
    except _Unclear as refused:
        why, todo = refused.args
        raise _not_understood(contract, where, why, todo) from None
    except (SyntaxError, TypeError, ValueError, ArithmeticError, LookupError, RecursionError) as error:
        raise _not_understood(contract, where, str(error), "correct the expression") from error
    if not holds:
        raise PipelineError(
            what=f"a contract of the pipeline is broken: {contract.message or contract.expression}",
            where=where,
            why=f"it is false that {contract.expression}; {_facts(contract, configs)}",
            todo="change the configuration of one of the tasks that it names",
        )


def _value(node: ast.expr, configs: Mapping[str, Mapping[str, Any]]) -> Any:
    def of(inner: ast.expr) -> Any:
        return _value(inner, configs)

    match node:
        case ast.Constant(value=value):
            return value
        case ast.Name(id=name):
            return _named(name, configs, "task")
        case ast.Attribute(value=inner, attr=name):
            return _named(name, of(inner), ast.unparse(inner))
        case ast.Subscript(value=inner, slice=index):
            return of(inner)[of(index)]
        case ast.BoolOp(op=op, values=values):
            return _first_that_decides(values, isinstance(op, ast.Or), of)
        case ast.UnaryOp(op=op, operand=operand) if type(op) in _UNARY:
            return _UNARY[type(op)](of(operand))
        case ast.BinOp(left=left, op=binary, right=right) if type(binary) in _BINARY:
            return _BINARY[type(binary)](of(left), of(right))
        case ast.IfExp(test=test, body=body, orelse=orelse):
            return of(body) if of(test) else of(orelse)
        case ast.Compare():
            return _comparison(node, of)
        case ast.List(elts=items) | ast.Tuple(elts=items) | ast.Set(elts=items):
            return _SEQUENCES[type(node)]([of(item) for item in items])
        case ast.Call(func=ast.Name(id=name), args=args, keywords=[]) if name in _FUNCTIONS:
            return _FUNCTIONS[name](*(of(arg) for arg in args))
    raise _Unclear(
        f"{ast.unparse(node)!r} is no part of what contracts may say", "compare fields of configurations"
    )


def _first_that_decides(values: Sequence[ast.expr], decides: bool, of: Callable[[ast.expr], Any]) -> Any:
    """Return the value, not only the truth, of the first operand whose truth is `decides`; else of the last."""
    for operand in values:
        value = of(operand)
        if bool(value) is decides:
            return value
    return value


def _comparison(node: ast.Compare, of: Callable[[ast.expr], Any]) -> bool:
    left = of(node.left)
    for op, comparator in zip(node.ops, node.comparators, strict=True):
        right = of(comparator)
        if not _COMPARE[type(op)](left, right):
            return False
        left = right
    return True


def _named(name: str, holder: Any, of_what: str) -> Any:
    if isinstance(holder, Mapping):
        if name in holder:
            return holder[name]
        raise _Unclear(f"there is no {name!r} in {of_what}", did_you_mean(name, map(str, holder)))
    raise _Unclear(f"{of_what} has no parts", f"leave out .{name}")


def _facts(contract: Contract, configs: Mapping[str, Mapping[str, Any]]) -> str:
    """Return the value of each field that the contract names."""
    tree = ast.parse(contract.expression.strip(), mode="eval")
    inner = {id(n.value) for n in ast.walk(tree) if isinstance(n, ast.Attribute)}
    fields = [n for n in ast.walk(tree) if isinstance(n, ast.Attribute) and id(n) not in inner]
    return ", ".join(dict.fromkeys(f"{ast.unparse(n)} is {_shown(n, configs)}" for n in fields))


def _shown(node: ast.expr, configs: Mapping[str, Mapping[str, Any]]) -> str:
    try:
        return repr(_value(node, configs))
    except _Unclear:  # behind an `or` that was never reached
        return "absent"


def _not_understood(contract: Contract, where: str, why: str, todo: str) -> PipelineError:
    return PipelineError(
        what=f"a contract cannot be understood: {contract.expression}", where=where, why=why, todo=todo
    )
