"""The `where` language: its words and its grammar. What an expression means is `where`'s business.

Precedence, low to high: OR, AND, NOT, comparisons and OVERLAPS and IN, + -, * / %, unary + -.
"""

import re
from collections.abc import Callable
from dataclasses import dataclass, replace

from .errors import QueryError

COMPARISONS = ("=", "!=", "<", "<=", ">", ">=", "OVERLAPS")
_KEYWORDS = {"AND", "OR", "NOT", "IN", "OVERLAPS"}
_DEEPEST = 30  # nested parentheses or calls; keeps us clear of Python's own limit
_LONGEST = 200  # terms of one sum or product, for the same reason

Span = tuple[int, int]  # where something stands in the text: begin, end


@dataclass(frozen=True, slots=True)
class Number:
    """A number, whole or not."""

    value: int | float
    at: Span


@dataclass(frozen=True, slots=True)
class Text:
    """A text in quotes."""

    value: str
    at: Span


@dataclass(frozen=True, slots=True)
class Instant:
    """A time, ``T'…'``, not read yet."""

    text: str
    at: Span


@dataclass(frozen=True, slots=True)
class Range:
    """``start..stop:stride``, both ends included; only within IN."""

    start: int
    stop: int
    stride: int
    at: Span


@dataclass(frozen=True, slots=True)
class Name:
    """A dimension or field, or a bound value by its bare name."""

    text: str
    at: Span


@dataclass(frozen=True, slots=True)
class Bind:
    """A bound value, ``:name``."""

    name: str
    at: Span


@dataclass(frozen=True, slots=True)
class Call:
    """A function with its arguments; its name in capitals."""

    function: str
    arguments: tuple["Node", ...]
    at: Span


@dataclass(frozen=True, slots=True)
class Pair:
    """``(begin, end)``: a time span."""

    begin: "Node"
    end: "Node"
    at: Span


@dataclass(frozen=True, slots=True)
class Signed:
    """A unary plus or minus."""

    sign: str
    operand: "Node"
    at: Span


@dataclass(frozen=True, slots=True)
class Binary:
    """Arithmetic or a comparison."""

    operator: str
    left: "Node"
    right: "Node"
    at: Span


@dataclass(frozen=True, slots=True)
class Membership:
    """``operand [NOT] IN (items)``."""

    operand: "Node"
    items: tuple["Node", ...]
    negated: bool
    at: Span


@dataclass(frozen=True, slots=True)
class Not:
    """The negation of a condition."""

    operand: "Node"
    at: Span


@dataclass(frozen=True, slots=True)
class Logical:
    """Two or more conditions joined by AND, or by OR."""

    operator: str
    operands: tuple["Node", ...]
    at: Span


Node = (
    Number | Text | Instant | Range | Name | Bind | Call | Pair | Signed | Binary | Membership | Not | Logical
)


def parse_expression(text: str) -> Node | None:
    """Parse `text` into its tree; None for a blank text.

    Raises
    ------
    QueryError
        That points at the first thing that does not fit.
    """
    tokens = _tokens(text)
    if len(tokens) == 1:
        return None
    parser = _Parser(text, tokens)
    tree = parser.disjunction()
    if parser.kind != "end":
        raise parser.unexpected("AND, OR, an operator or the end")
    return tree


def refusal(text: str, at: Span, what: str, why: str, todo: str) -> QueryError:
    """Return an error that underlines the part `at` of the expression."""
    begin = text.rfind("\n", 0, at[0]) + 1
    stop = text.find("\n", begin)
    line = text[begin : stop if stop >= 0 else len(text)].replace("\t", " ")
    offset = at[0] - begin
    width = max(1, min(at[1], begin + len(line)) - at[0])
    number = text.count("\n", 0, at[0]) + 1
    place = f"line {number}, column {offset + 1}" if "\n" in text.strip() else f"column {offset + 1}"
    return QueryError(what, f"expression, {place}\n    {line}\n    {' ' * offset}{'^' * width}", why, todo)


@dataclass(frozen=True, slots=True)
class _Token:
    kind: str
    text: str
    at: Span


_TOKEN = re.compile(
    r"""(?P<blank>\s+)
    | (?P<instant>[Tt]'[^']*')
    | (?P<text>'[^']*')
    | (?P<range>-?\d+\s*\.\.\s*-?\d+(?:\s*:\s*[1-9]\d*)?)
    | (?P<number>(?:\d+(?:\.\d*)?|\.\d+)(?:[eE][-+]?\d+)?)
    | (?P<bind>:[A-Za-z_][A-Za-z0-9_]*)
    | (?P<name>[A-Za-z_][A-Za-z0-9_]*(?:\.[A-Za-z_][A-Za-z0-9_]*){0,2})
    | (?P<operator>!=|<=|>=|[=<>+\-*/%(),])""",
    re.VERBOSE,
)


def _tokens(text: str) -> list[_Token]:
    found, position = [], 0
    while position < len(text):
        match = _TOKEN.match(text, position)
        if match is None:
            raise _unreadable(text, position)
        kind, word, position = str(match.lastgroup), match[0], match.end()
        if kind == "name" and word.upper() in _KEYWORDS:
            kind, word = "operator", word.upper()
        if kind != "blank":
            found.append(_Token(kind, word, match.span()))
    return [*found, _Token("end", "", (len(text.rstrip()), len(text.rstrip()) + 1))]


def _unreadable(text: str, position: int) -> QueryError:
    at = (position, position + 1)
    if text[position] == "'":
        return refusal(
            text,
            (position, len(text)),
            "a quoted text does not end",
            "its closing ' is missing",
            "close it; a text that holds a quote itself must be bound by name",
        )
    todo = "write texts in single quotes: 'text'" if text[position] == '"' else "take it out"
    return refusal(
        text,
        at,
        f"the character {text[position]!r} has no meaning here",
        "it starts no name, number, text or operator",
        todo,
    )


class _Parser:
    """Recursive descent; one method for each level of precedence."""

    def __init__(self, text: str, tokens: list[_Token]) -> None:
        self._text = text
        self._tokens = tokens
        self._next = 0
        self._depth = 0

    @property
    def kind(self) -> str:
        return self._tokens[self._next].kind

    def disjunction(self) -> Node:
        return self._logical("OR", self._conjunction)

    def unexpected(self, wanted: str) -> QueryError:
        token = self._tokens[self._next]
        found = "the expression ends" if token.kind == "end" else f"{token.text!r} does not fit"
        return refusal(self._text, token.at, f"{found} here", f"expected {wanted}", self._advice(token))

    def _logical(self, operator: str, part: Callable[[], Node]) -> Node:
        operands = [part()]
        while self._take(operator):
            operands.append(part())
        if len(operands) == 1:
            return operands[0]
        return Logical(operator, tuple(operands), (operands[0].at[0], operands[-1].at[1]))

    def _conjunction(self) -> Node:
        return self._logical("AND", self._negation)

    def _negation(self) -> Node:
        begin = self._tokens[self._next].at[0]
        count = 0
        while self._take("NOT"):
            count += 1
        node = self._comparison()
        for _ in range(2 - count % 2 if count else 0):  # NOT NOT NOT is NOT
            node = Not(node, (begin, node.at[1]))
        return node

    def _comparison(self) -> Node:
        node = self._membership()
        if (operator := self._take(*COMPARISONS)) is None:
            return node
        right = self._membership()
        if self.kind == "operator" and self._tokens[self._next].text in COMPARISONS:
            at = self._tokens[self._next].at
            why = "what a comparison yields is true or false, which nothing is compared with"
            raise refusal(self._text, at, "comparisons cannot be chained", why, "join them with AND")
        return Binary(operator, node, right, (node.at[0], right.at[1]))

    def _membership(self) -> Node:
        operand = self._sum()
        negated = self._peek("NOT") and self._peek("IN", ahead=1)
        if negated:
            self._take("NOT")
        if not self._take("IN"):
            return operand
        self._expect("(")
        items = [self._item()]
        while self._take(","):
            items.append(self._item())
        return Membership(operand, tuple(items), negated, (operand.at[0], self._expect(")").at[1]))

    def _item(self) -> Node:
        node = self._sum()
        if isinstance(node, Pair | Membership | Not | Logical | Binary):
            raise refusal(
                self._text,
                node.at,
                "IN takes no expressions",
                "its items are numbers, texts, times, ranges, names and bound values",
                "write this part as a comparison of its own",
            )
        return node

    def _sum(self) -> Node:
        return self._arithmetic(("+", "-"), lambda: self._arithmetic(("*", "/", "%"), self._signed))

    def _arithmetic(self, operators: tuple[str, ...], part: Callable[[], Node]) -> Node:
        node, terms = part(), 1
        while (operator := self._take(*operators)) is not None:
            right, terms = part(), terms + 1
            node = Binary(operator, node, right, (node.at[0], right.at[1]))
            if terms > _LONGEST:
                raise self._too_much(node.at, f"more than {_LONGEST} terms are in this")
        return node

    def _signed(self) -> Node:
        begin = self._tokens[self._next].at[0]
        signs = ""
        while (sign := self._take("+", "-")) is not None:
            signs += sign
        node = self._primary()
        if not signs:
            return node
        return Signed("-" if signs.count("-") % 2 else "+", node, (begin, node.at[1]))

    def _primary(self) -> Node:
        token = self._tokens[self._next]
        if token.text == "(":
            return self._parenthesis()
        read = _LITERALS.get(token.kind)
        if read is None:
            raise self.unexpected("a name, a value or a parenthesis")
        self._next += 1
        if token.kind == "name" and self._peek("("):
            return self._call(token)
        return read(token)

    def _call(self, name: _Token) -> Node:
        self._open()
        arguments: list[Node] = []
        if not self._peek(")"):
            arguments.append(self.disjunction())
            while self._take(","):
                arguments.append(self.disjunction())
        return Call(name.text.upper(), tuple(arguments), (name.at[0], self._close()))

    def _parenthesis(self) -> Node:
        opened = self._open()
        node = self.disjunction()
        if self._take(","):
            end = self.disjunction()
            node = Pair(node, end, node.at)
        return replace(node, at=(opened, self._close()))

    def _open(self) -> int:
        token = self._expect("(")
        self._depth += 1
        if self._depth > _DEEPEST:
            raise self._too_much(token.at, f"more than {_DEEPEST} parentheses are open")
        return token.at[0]

    def _close(self) -> int:
        self._depth -= 1
        return self._expect(")").at[1]

    def _peek(self, word: str, ahead: int = 0) -> bool:
        at = min(self._next + ahead, len(self._tokens) - 1)
        return self._tokens[at].kind == "operator" and self._tokens[at].text == word

    def _take(self, *words: str) -> str | None:
        token = self._tokens[self._next]
        if token.kind == "operator" and token.text in words:
            self._next += 1
            return token.text
        return None

    def _expect(self, word: str) -> _Token:
        if not self._peek(word):
            raise self.unexpected(repr(word))
        self._next += 1
        return self._tokens[self._next - 1]

    def _too_much(self, at: Span, what: str) -> QueryError:
        todo = "flatten the expression, or bind a list of values and use IN"
        return refusal(self._text, at, what, "nobody could read that", todo)

    def _advice(self, token: _Token) -> str:
        before = self._tokens[self._next - 1].text if self._next else ""
        hints = {
            ("=", "="): "equality is written with one =",
            ("<", ">"): "write != for 'differs from'",
            ("!", "="): "write != without a blank",
        }
        words = {
            "IS": "write `= NULL` or `!= NULL`",
            "LIKE": "write GLOB(column, 'pattern*')",
            "BETWEEN": "write `x >= a AND x <= b`, or for whole numbers `x IN (a..b)`",
        }
        hint = hints.get((before, token.text)) or words.get(token.text.upper())
        return hint or "correct the expression there"


def _number(token: _Token) -> Number:
    whole = token.text.isdigit()
    return Number(int(token.text) if whole else float(token.text), token.at)


def _range(token: _Token) -> Range:
    start, stop = token.text.split("..")
    stop, _, stride = stop.partition(":")
    return Range(int(start), int(stop), int(stride or 1), token.at)


_LITERALS: dict[str, Callable[[_Token], Node]] = {
    "number": _number,
    "text": lambda token: Text(token.text[1:-1], token.at),
    "instant": lambda token: Instant(token.text[2:-1], token.at),
    "range": _range,
    "bind": lambda token: Bind(token.text[1:], token.at),
    "name": lambda token: Name(token.text, token.at),
}
