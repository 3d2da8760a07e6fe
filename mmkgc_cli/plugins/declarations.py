"""What the source of a plugin declares: its settings and class attributes, read without running it.

Names are followed through the file, its base classes and the modules of its own package and of
mmkgc_cli that it imports. Only literals, arithmetic on numbers, types, `Field` and enum members are
evaluated. Validators are ignored: training validates with the imported class.
"""

from __future__ import annotations

import ast
import builtins
import contextlib
import functools
import math
import operator
import typing
import warnings
from collections.abc import Callable, Iterator, Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any, Literal, NamedTuple, Union

from mmkgc_cli.errors import MmkgcError
from mmkgc_cli.plugins.discovery import module_file
from mmkgc_cli.plugins.source import bound_names, parse

if TYPE_CHECKING:
    from pydantic import BaseModel

    from mmkgc_cli.plugins.kinds import Plugin, PluginKind

# The modules of these packages are read in addition to that of the plugin.
PACKAGES = ("mmkgc_cli",)
TYPES = {name: getattr(builtins, name) for name in (
    "int", "float", "str", "bool", "list", "tuple", "dict", "set", "frozenset"
)}  # fmt: skip
FACTORIES = {name: TYPES[name] for name in ("list", "tuple", "dict", "set", "frozenset")}
CONSTRAINTS = (
    "ge", "gt", "le", "lt", "multiple_of", "min_length", "max_length", "pattern", "description",
    "title",
)  # fmt: skip
# Arguments of `Field` that change which keys or values are valid in a way that is not read.
NOT_READ = ("alias", "validation_alias", "strict", "discriminator", "init", "exclude_if")
VALIDATORS = ("field_validator", "model_validator", "validator", "root_validator")
# 2**16 is read, 2**10**9 is not.
MAX_BITS = 4096
MAX_DEPTH = 50
OPERATORS: Mapping[type[ast.AST], Callable[..., Any]] = {
    ast.Add: operator.add, ast.Sub: operator.sub, ast.Mult: operator.mul,
    ast.Div: operator.truediv, ast.FloorDiv: operator.floordiv, ast.Mod: operator.mod,
    ast.Pow: operator.pow, ast.USub: operator.neg, ast.UAdd: operator.pos, ast.Not: operator.not_,
}  # fmt: skip


class NotDeclared(Exception):
    """The source does not show a value or a type."""


class Declaration:
    """What a plugin declares; what its source does not show is missing."""

    def __init__(self, reader: _Reader, classes: Sequence[_Definition], base: str) -> None:
        """Takes the class of the plugin and its bases; `base` names the base class of the kind."""
        self._reader = reader
        self._classes = classes
        self._base = base

    @functools.cached_property
    def settings(self) -> type[BaseModel] | None:
        """The settings as a pydantic model without validators; see `declared_settings`."""
        try:
            return self._reader.model(self._config) if self._config else None
        except NotDeclared:
            return None

    @functools.cached_property
    def has_validators(self) -> bool:
        """Whether the settings have validators, which `settings` ignores."""
        return self._config is not None and self._reader.has_validators(self._config)

    @functools.cached_property
    def _config(self) -> _Definition | None:
        """The class that the first attribute `Config` names."""
        for definition in self._classes:
            for name, node in _members(definition.node):
                if name == "Config":
                    try:
                        return self._reader.follow(_Definition(definition.module, node))
                    except NotDeclared:
                        return None
        return None

    @functools.cached_property
    def values(self) -> Mapping[str, Any]:
        """Class attributes that are literals; enum members are given by name."""
        values: dict[str, Any] = {}
        for module, node in reversed(self._classes):
            for name, value in _members(node):
                values.pop(name, None)
                with contextlib.suppress(NotDeclared):
                    values[name] = self._reader.value(_Definition(module, value))
        return values

    def defines(self, method: str) -> bool:
        """Whether the plugin overrides a method of the base class of its kind."""
        for module, node in self._classes:
            if f"{module.dotted}:{getattr(node, 'name', '')}" == self._base:
                return False
            if method in dict(_members(node)):
                return True
        return True  # its bases are not known


class _Imported(NamedTuple):
    """An imported name: a module, or a name of a module."""

    module: str
    name: str | None


class _Definition(NamedTuple):
    """A class or an expression, with the module that resolves its names."""

    module: _Module
    node: ast.AST


class _Module:
    """The top-level names of one file."""

    def __init__(self, dotted: str, tree: ast.Module) -> None:
        self.dotted = dotted
        self.names: dict[str, ast.ClassDef | ast.expr | _Imported] = {}
        for node in tree.body:
            # Imports for type checkers or under try are taken; other branches are not known.
            for inner in ast.walk(node) if isinstance(node, ast.If | ast.Try) else (node,):
                for name in bound_names(inner) if isinstance(inner, ast.stmt) else ():
                    self.names.pop(name, None)
                self.names |= _bindings(inner)


def _bindings(node: ast.AST) -> dict[str, ast.ClassDef | ast.expr | _Imported]:
    if isinstance(node, ast.ClassDef):
        return {node.name: node}
    if isinstance(node, ast.Assign) and len(node.targets) == 1:
        target = node.targets[0]
        return {target.id: node.value} if isinstance(target, ast.Name) else {}
    if isinstance(node, ast.AnnAssign) and isinstance(node.target, ast.Name) and node.value:
        return {node.target.id: node.value}
    if isinstance(node, ast.ImportFrom) and node.module and not node.level:
        return {a.asname or a.name: _Imported(node.module, a.name) for a in node.names}
    if isinstance(node, ast.Import):
        return {
            alias.asname or alias.name.partition(".")[0]: _Imported(
                alias.name if alias.asname else alias.name.partition(".")[0], None
            )
            for alias in node.names
        }
    return {}


def declared_settings(plugin: Plugin, kind: PluginKind[Any]) -> type[BaseModel] | None:
    """The settings of a plugin as a pydantic model, without its validators.

    A field with a type that the source does not show is of type Any. None when the class of the
    settings, one of its bases or one of its fields cannot be found.
    """
    return declaration(plugin, kind).settings


def declaration(plugin: Plugin, kind: PluginKind[Any]) -> Declaration:
    """Everything that a plugin declares; nothing for a file that is broken."""
    reader = _Reader(plugin)
    try:
        tree = parse(plugin.read() if plugin.file else b"", str(plugin.file))
        name = ast.Name(plugin.attribute or kind.attribute)
        target = reader.follow(_Definition(_Module(plugin.module, tree), name))
    except (MmkgcError, NotDeclared, SyntaxError, ValueError, RecursionError, MemoryError):
        return Declaration(reader, [], kind.base)
    is_class = isinstance(target.node, ast.ClassDef)
    return Declaration(reader, list(reader.lineage(target)) if is_class else [], kind.base)


def _members(node: ast.AST) -> Iterator[tuple[str, ast.AST]]:
    """The names of a class body with their expressions or functions."""
    for statement in node.body if isinstance(node, ast.ClassDef) else ():
        if isinstance(statement, ast.FunctionDef | ast.AsyncFunctionDef):
            yield statement.name, statement
        else:
            for name, value in _bindings(statement).items():
                if isinstance(value, ast.expr):
                    yield name, value


class _Reader:
    """Evaluates what the source of one plugin shows."""

    def __init__(self, plugin: Plugin) -> None:
        self._packages = {*PACKAGES, plugin.module.partition(".")[0]} - {""}
        self._modules: dict[str, _Module] = {}
        self._depth = 0

    # Names

    def _module(self, dotted: str) -> _Module:
        if dotted.partition(".")[0] not in self._packages:
            raise NotDeclared(dotted)
        if dotted not in self._modules:
            file = module_file(dotted)
            try:
                source = Path(file).read_bytes() if file else b""
                self._modules[dotted] = _Module(dotted, parse(source, str(file)))
            except (OSError, SyntaxError, ValueError, RecursionError, MemoryError):
                raise NotDeclared(dotted) from None
        return self._modules[dotted]

    def follow(self, definition: _Definition) -> _Definition:
        """Returns the class or expression that a name, alias or import refers to."""
        for _ in range(MAX_DEPTH):
            module, node = definition
            if isinstance(node, ast.Name):
                target = module.names.get(node.id)
            elif isinstance(node, ast.Attribute):
                target = self._attribute(module, node)
            else:
                return definition
            if target is None:
                raise NotDeclared(ast.unparse(node))
            if isinstance(target, _Imported):
                definition = self._import(target)
            else:
                definition = _Definition(module, target)
        raise NotDeclared(ast.unparse(definition.node))

    def _attribute(self, module: _Module, node: ast.Attribute) -> _Imported | None:
        name = self.external(_Definition(module, node), strict=False)
        return _Imported(*name.rpartition(".")[::2]) if name else None

    def _import(self, target: _Imported) -> _Definition:
        if target.name is None:
            raise NotDeclared(target.module)
        module = self._module(target.module)
        return _Definition(module, ast.Name(target.name))

    def external(self, definition: _Definition, strict: bool = True) -> str:
        """``typing.Literal``: the dotted name of what the source imports or of a builtin.

        Names of modules that are read are followed to where they come from if `strict` is set.
        Empty for a class or an expression of the source.
        """
        for _ in range(MAX_DEPTH):
            module, node = definition
            if isinstance(node, ast.Attribute):
                base = self.external(_Definition(module, node.value), strict=False)
                return f"{base}.{node.attr}" if base else ""
            if not isinstance(node, ast.Name):
                return ""
            target = module.names.get(node.id)
            if target is None:
                return f"builtins.{node.id}" if hasattr(builtins, node.id) else ""
            if not isinstance(target, _Imported):
                if not isinstance(target, ast.Name | ast.Attribute):
                    return ""
                definition = _Definition(module, target)
                continue
            dotted = target.module if target.name is None else f"{target.module}.{target.name}"
            known = target.module.partition(".")[0] in self._packages
            if not (strict and known and target.name):
                return dotted
            definition = self._import(target)
        return ""

    # Classes

    def lineage(self, definition: _Definition) -> Iterator[_Definition]:
        """A class and its bases, as far as they are read, in the order of lookup."""
        yield definition
        for base in self._bases(definition):
            yield from self.lineage(base)

    def _bases(self, definition: _Definition) -> Iterator[_Definition]:
        node = definition.node
        for expression in node.bases if isinstance(node, ast.ClassDef) else ():
            try:
                base = self.follow(_Definition(definition.module, expression))
            except NotDeclared:
                continue
            if isinstance(base.node, ast.ClassDef):
                yield base

    def has_validators(self, definition: _Definition) -> bool:
        return any(
            isinstance(part, ast.Name | ast.Attribute)
            and ast.unparse(part).rpartition(".")[2] in VALIDATORS
            for each in self.lineage(definition)
            for part in ast.walk(each.node)
        )

    def model(self, definition: _Definition, depth: int = 0) -> type[BaseModel]:
        from pydantic import BaseModel, create_model
        from pydantic.errors import PydanticUserError

        from mmkgc_cli.plugins import settings

        module, node = definition
        if not isinstance(node, ast.ClassDef) or node.keywords or depth > MAX_DEPTH:
            raise NotDeclared(ast.unparse(node))
        if (module.dotted, node.name) == (settings.__name__, settings.PluginSettings.__name__):
            return settings.PluginSettings
        bases: list[type[BaseModel]] = []
        for expression in node.bases:
            base = _Definition(module, expression)
            if self.external(base) in ("pydantic.BaseModel", "pydantic.main.BaseModel"):
                bases.append(BaseModel)
            else:
                bases.append(self.model(self.follow(base), depth + 1))
        if not bases:
            raise NotDeclared(node.name)
        fields: dict[str, Any] = self._fields(definition)
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")  # Python shows them when the file is imported
            try:
                return create_model(node.name, __base__=tuple(bases), **fields)
            except (PydanticUserError, TypeError, ValueError):  # a constraint does not fit its type
                loose: dict[str, Any] = {name: (Any, value) for name, (_, value) in fields.items()}
                return create_model(node.name, __base__=tuple(bases), **loose)

    def _fields(self, definition: _Definition) -> dict[str, Any]:
        module, node = definition
        fields: dict[str, Any] = {}
        for statement in node.body if isinstance(node, ast.ClassDef) else ():
            if isinstance(statement, ast.AnnAssign) and isinstance(statement.target, ast.Name):
                name = statement.target.id
                if not (name.startswith("_") or self._is_class_variable(module, statement)):
                    fields[name] = self._field(module, statement)
            elif isinstance(statement, ast.Assign):
                if {"model_config"} & bound_names(statement):
                    raise NotDeclared("model_config")
            elif not isinstance(
                statement, ast.Expr | ast.Pass | ast.FunctionDef | ast.AsyncFunctionDef
            ):
                raise NotDeclared(ast.unparse(statement))
        return fields

    def _is_class_variable(self, module: _Module, statement: ast.AnnAssign) -> bool:
        node = statement.annotation
        node = node.value if isinstance(node, ast.Subscript) else node
        return self.external(_Definition(module, node)) == "typing.ClassVar"

    def _field(self, module: _Module, statement: ast.AnnAssign) -> tuple[Any, Any]:
        from pydantic import Field

        try:
            annotation = self.type(_Definition(module, statement.annotation))
        except NotDeclared:
            annotation = Any
        default: Any = ...
        options: dict[str, Any] = {}
        if statement.value is not None:
            default, options = self._default(module, statement.value)
        return annotation, Field(default, **options)

    def _default(self, module: _Module, node: ast.expr) -> tuple[Any, dict[str, Any]]:
        """The default (``...`` for a required field) and the arguments of `Field`."""
        call = node if isinstance(node, ast.Call) else None
        if call is None or self.external(_Definition(module, call.func)) != "pydantic.Field":
            return self._shown(module, node), {}
        if any(keyword.arg is None or keyword.arg in NOT_READ for keyword in call.keywords):
            raise NotDeclared(ast.unparse(node))
        arguments = {keyword.arg or "": keyword.value for keyword in call.keywords}
        default: Any = ...
        if call.args or "default" in arguments:
            default = self._shown(module, call.args[0] if call.args else arguments["default"])
        elif factory := arguments.get("default_factory"):
            default = self._made(module, factory)
        options: dict[str, Any] = {}
        for key in CONSTRAINTS:
            try:
                if key in arguments:
                    options[key] = self.value(_Definition(module, arguments[key]))
            except NotDeclared:
                continue
        return default, options

    def _shown(self, module: _Module, node: ast.expr) -> Any:
        """A default, or its source where it cannot be evaluated."""
        try:
            return self.value(_Definition(module, node))
        except NotDeclared:
            return ast.unparse(node)

    def _made(self, module: _Module, node: ast.expr) -> Any:
        """What a default factory returns, or its source."""
        if isinstance(node, ast.Lambda):
            return self._shown(module, node.body)
        name = self.external(_Definition(module, node)).removeprefix("builtins.")
        return FACTORIES[name]() if name in FACTORIES else f"{ast.unparse(node)}()"

    # Types

    def type(self, definition: _Definition) -> Any:
        """Returns the type of an annotation."""
        self._depth += 1
        try:
            if self._depth > MAX_DEPTH:
                raise NotDeclared(ast.unparse(definition.node))
            return self._type(*definition)
        finally:
            self._depth -= 1

    def _type(self, module: _Module, node: ast.AST) -> Any:
        if isinstance(node, ast.Constant) and node.value is None:
            return type(None)
        if isinstance(node, ast.Constant) and isinstance(node.value, str):
            try:
                inner = ast.parse(node.value, mode="eval").body
            except (SyntaxError, ValueError):
                raise NotDeclared(node.value) from None
            return self.type(_Definition(module, inner))
        if isinstance(node, ast.Name | ast.Attribute):
            name = self.external(_Definition(module, node))
            if name == "typing.Any":
                return Any
            if (kind := TYPES.get(name.removeprefix("builtins."))) is not None:
                return kind
            target = self.follow(_Definition(module, node))
            if isinstance(target.node, ast.ClassDef):
                raise NotDeclared(ast.unparse(node))
            return self.type(target)
        if isinstance(node, ast.BinOp) and isinstance(node.op, ast.BitOr):
            sides = (self.type(_Definition(module, side)) for side in (node.left, node.right))
            return Union[tuple(sides)]  # noqa: UP007
        if isinstance(node, ast.Subscript):
            return self._generic(module, node)
        raise NotDeclared(ast.unparse(node))

    def _generic(self, module: _Module, node: ast.Subscript) -> Any:
        name = self.external(_Definition(module, node.value)).rpartition(".")[2]
        parts = node.slice.elts if isinstance(node.slice, ast.Tuple) else [node.slice]
        if name == "Literal":
            return Literal[tuple(self.value(_Definition(module, part)) for part in parts)]
        if name not in (*FACTORIES, "Optional", "Union"):
            raise NotDeclared(ast.unparse(node))
        types = tuple(
            ... if isinstance(part, ast.Constant) and part.value is ... else
            self.type(_Definition(module, part)) for part in parts
        )  # fmt: skip
        if name == "Optional":
            return Union[(*types, None)]
        return Union[types] if name == "Union" else TYPES[name][types]  # noqa: UP007

    # Values

    def value(self, definition: _Definition) -> Any:
        """The value of an expression that is a literal in the wider sense of this module."""
        self._depth += 1
        try:
            if self._depth > MAX_DEPTH:
                raise NotDeclared(ast.unparse(definition.node))
            return self._value(*definition)
        except (ArithmeticError, TypeError, ValueError, RecursionError):
            raise NotDeclared(ast.unparse(definition.node)) from None
        finally:
            self._depth -= 1

    def _value(self, module: _Module, node: ast.AST) -> Any:
        def part(child: ast.expr) -> Any:
            return self.value(_Definition(module, child))

        match node:
            case ast.Constant(value=value):
                return value
            case ast.Tuple(elts=elts):
                return tuple(self._items(module, elts))
            case ast.List(elts=elts):
                return list(self._items(module, elts))
            case ast.Set(elts=elts):
                return set(self._items(module, elts))
            case ast.Dict(keys=keys, values=values) if all(keys):
                return {part(k): part(v) for k, v in zip(keys, values, strict=True) if k}
            case ast.UnaryOp(op=op, operand=operand) if type(op) in OPERATORS:
                return OPERATORS[type(op)](_number(part(operand)))
            case ast.BinOp(left=left, op=op, right=right) if type(op) in OPERATORS:
                a, b = _number(part(left)), _number(part(right))
                if isinstance(op, ast.Pow) and abs(b) * math.log2(abs(a) + 2) > MAX_BITS:
                    raise NotDeclared(ast.unparse(node))
                return OPERATORS[type(op)](a, b)
            case ast.Call(func=func, args=[argument], keywords=[]) if (
                self.external(_Definition(module, func)) == "typing.get_args"
            ):
                return typing.get_args(self.type(_Definition(module, argument)))
            case ast.Attribute(value=owner, attr=attribute):
                return self._attribute_value(module, node, owner, attribute)
            case ast.Name():
                return self.value(self.follow(_Definition(module, node)))
        raise NotDeclared(ast.unparse(node))

    def _items(self, module: _Module, nodes: Sequence[ast.expr]) -> Iterator[Any]:
        for node in nodes:
            if isinstance(node, ast.Starred):
                yield from self.value(_Definition(module, node.value))
            else:
                yield self.value(_Definition(module, node))

    def _attribute_value(
        self, module: _Module, node: ast.Attribute, owner: ast.expr, attribute: str
    ) -> Any:
        name = self.external(_Definition(module, node))
        if name in ("math.pi", "math.e", "math.inf", "math.tau"):
            return getattr(math, attribute)
        try:
            target = self.follow(_Definition(module, owner))
        except NotDeclared:
            return self.value(self.follow(_Definition(module, node)))
        cls = target.node
        is_enum = isinstance(cls, ast.ClassDef) and "Enum" in str([*map(ast.unparse, cls.bases)])
        if is_enum and attribute in dict(_members(cls)):
            return attribute
        raise NotDeclared(ast.unparse(node))


def _number(value: Any) -> Any:
    if not isinstance(value, bool | int | float):
        raise NotDeclared(repr(value))
    return value
