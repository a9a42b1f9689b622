"""Small edits of Python functions, for programs that are nearly right.

Works on the text, so that layout is kept: each edit replaces the characters of one node of the
syntax tree. Nothing is run here.
"""
import ast
import random

COMPARE = {ast.Lt: "<=", ast.LtE: "<", ast.Gt: ">=", ast.GtE: ">", ast.Eq: "!=", ast.NotEq: "==",
           ast.In: "not in", ast.NotIn: "in", ast.Is: "is not", ast.IsNot: "is"}
SYMBOL = {ast.Lt: "<", ast.LtE: "<=", ast.Gt: ">", ast.GtE: ">=", ast.Eq: "==", ast.NotEq: "!=",
          ast.In: "in", ast.NotIn: "not in", ast.Is: "is", ast.IsNot: "is not"}
BINARY = {ast.Add: ("+", "-"), ast.Sub: ("-", "+"), ast.Mult: ("*", "+"), ast.FloorDiv: ("//", "/"),
          ast.Div: ("/", "//"), ast.Mod: ("%", "//"), ast.BitAnd: ("&", "|"), ast.BitOr: ("|", "&")}
SWAPPED = {"min": "max", "max": "min", "any": "all", "all": "any", "sorted": "list", "append": "extend"}


def offsets(source):
    """The offset of each line's first byte."""
    starts = [0]
    for line in source.encode().split(b"\n"):
        starts.append(starts[-1] + len(line) + 1)
    return starts


def edits(source, first_line=1):
    """All edits of `source` from a line on: (kind, start, end, replacement), in bytes."""
    raw, starts, found = source.encode(), offsets(source), []

    def span(node):
        return (starts[node.lineno - 1] + node.col_offset, starts[node.end_lineno - 1] + node.end_col_offset)

    def between(left, right, old, new, kind):
        start, end = span(left)[1], span(right)[0]
        at = raw[start:end].decode().find(old)
        if at >= 0:
            found.append((kind, start + at, start + at + len(old), new))

    for node in ast.walk(ast.parse(source)):
        if getattr(node, "lineno", 0) < first_line:
            continue
        if isinstance(node, ast.Compare):
            left = node.left
            for operator, right in zip(node.ops, node.comparators):
                between(left, right, SYMBOL[type(operator)], COMPARE[type(operator)], "compare")
                left = right
        elif isinstance(node, ast.BinOp) and type(node.op) in BINARY:
            between(node.left, node.right, *BINARY[type(node.op)], "operator")
        elif isinstance(node, ast.BoolOp):
            old, new = ("and", "or") if isinstance(node.op, ast.And) else ("or", "and")
            between(node.values[0], node.values[1], old, new, "boolean")
        elif isinstance(node, ast.Constant):
            start, end = span(node)
            if node.value is True or node.value is False:
                found.append(("constant", start, end, str(not node.value)))
            elif isinstance(node.value, int):
                found.extend(("constant", start, end, str(node.value + step)) for step in (1, -1))
            elif isinstance(node.value, float):
                found.append(("constant", start, end, repr(node.value + 1.0)))
        elif isinstance(node, ast.Return) and node.value is not None:
            found.append(("return", *span(node.value), "None"))
        elif isinstance(node, ast.UnaryOp) and isinstance(node.op, (ast.Not, ast.USub)):
            start, end = span(node)
            inner = span(node.operand)
            found.append(("unary", start, end, raw[inner[0]:inner[1]].decode()))
        elif isinstance(node, ast.Name) and node.id in SWAPPED:
            found.append(("name", *span(node), SWAPPED[node.id]))
        elif isinstance(node, ast.If):
            start, end = span(node.test)
            found.append(("condition", start, end, "True"))
        elif isinstance(node, (ast.Assign, ast.AugAssign, ast.Expr)):
            found.append(("statement", *span(node), "pass"))
    return found


def mutants(source, count, seed, first_line=1):
    """Up to `count` different programs with one edit each, the same for the same seed."""
    options = edits(source, first_line)
    random.Random(seed).shuffle(options)
    raw, seen, out = source.encode(), {source}, []
    for kind, start, end, new in options:
        text = (raw[:start] + new.encode() + raw[end:]).decode()
        if text not in seen:
            seen.add(text)
            out.append((kind, text))
        if len(out) == count:
            break
    return out
