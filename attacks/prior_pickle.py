"""Reading pickles without running them.

A pickle is a program, and unpickling one from outside runs whatever it names. This interpreter
knows the stack instructions and a closed list of names; it imports nothing and calls nothing that a
pickle asks for. What comes out is dicts, lists, tuples, sets, numbers, strings, bytes, descriptions
of tensors, and inert records of the few other things that weight files hold.
"""

from __future__ import annotations

import pickletools
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field
from typing import IO, Any

from tasks.errors import DataError, UnsafePickleError


@dataclass(frozen=True)
class Name:
    """A class or a function that a pickle names; never imported."""

    module: str
    name: str

    def __str__(self) -> str:
        return f"{self.module}.{self.name}"


@dataclass(eq=False)
class Record:
    """An object of a class that is not here: its name, arguments and state, and no behaviour."""

    of: Name
    arguments: tuple[Any, ...] = ()
    state: dict[str, Any] = field(default_factory=dict)
    items: dict[Any, Any] = field(default_factory=dict)
    elements: list[Any] = field(default_factory=list)


@dataclass(eq=False)
class Storage:
    """Numbers that tensors are views of: where they are, and later the bytes."""

    dtype: str
    key: str
    count: int
    data: bytes | None = None


@dataclass(eq=False)
class TensorView:
    """A tensor that is described and not yet made."""

    storage: Storage
    offset: int
    size: tuple[int, ...]
    stride: tuple[int, ...]


INERT_PACKAGES = ("dnnlib", "torch_utils", "training")
"""Their objects become records: what StyleGAN2's own pickles hold beside tensors."""

INERT = {
    *(
        Name(f"numpy{core}.multiarray", name)
        for core in (".core", "._core")
        for name in ("scalar", "_reconstruct")
    ),
    *(Name("numpy", name) for name in ("dtype", "ndarray")),
    *(Name(builtins, "object") for builtins in ("builtins", "__builtin__")),
    *(Name(module, "_reconstructor") for module in ("copyreg", "copy_reg")),
    Name("argparse", "Namespace"),
    Name("torch", "device"),
}

PERSISTENT = Name("torch_utils.persistence", "_reconstruct_persistent_obj")
"""Runs a module's source in NVIDIA's code; here its argument's `state` is kept, and no more."""

Scalar = (str, int, float, bytes, type(None))


class _Mark:
    pass


_MARK = _Mark()


class PickleReader:
    """Interprets pickles of one file.

    Args:
        where: names the file in sentences.
        load_storage: reads the bytes of a storage that is pickled by itself.

    Attributes:
        storages: by their keys, all that were named so far; their bytes are read by the caller.
    """

    def __init__(self, where: str, load_storage: Callable[[bytes], Storage]) -> None:
        self.where = where
        self.storages: dict[str, Storage] = {}
        builders: dict[Name, Callable[..., Any]] = {
            Name("collections", "OrderedDict"): _ordered,
            Name("_codecs", "encode"): _encode,
            Name("torch", "Size"): lambda sizes=(): tuple(sizes),
            Name("torch._utils", "_rebuild_tensor"): _tensor,
            Name("torch._utils", "_rebuild_tensor_v2"): _tensor,
            Name("torch._utils", "_rebuild_parameter"): _parameter,
            Name("torch.storage", "_load_from_bytes"): load_storage,
        }
        for builtins in ("builtins", "__builtin__"):
            builders[Name(builtins, "set")] = lambda items=(): _members(items)
            builders[Name(builtins, "frozenset")] = lambda items=(): _members(items)
        self.builders = builders

    def read(self, stream: IO[bytes]) -> Any:
        """Return what the next pickle of a stream describes, and leave the stream behind it.

        Raises:
            UnsafePickleError: it names something that is not on the list.
            DataError: it is damaged.
        """
        try:
            return self._run(pickletools.genops(stream))
        except (ValueError, TypeError, LookupError, AttributeError, ArithmeticError) as error:
            raise DataError(
                f"{self.where} is not a pickle that can be read ({type(error).__name__}: "
                f"{error!s:.80}); it is damaged, or no weight file"
            ) from error

    def _run(self, operations: Iterator[tuple[Any, Any, int | None]]) -> Any:
        stack: list[Any] = []
        memo: dict[int, Any] = {}
        for opcode, argument, _ in operations:
            name: str = opcode.name
            if name == "STOP":
                return stack.pop()
            if name in _IGNORED:
                continue
            if name in _LITERALS:
                stack.append(argument)
            elif name in _CONSTANTS:
                stack.append(_CONSTANTS[name]())
            elif name in ("MEMOIZE", "PUT", "BINPUT", "LONG_BINPUT"):
                memo[len(memo) if name == "MEMOIZE" else argument] = stack[-1]
            elif name in ("GET", "BINGET", "LONG_BINGET"):
                stack.append(memo[argument])
            elif name == "GLOBAL":
                stack.append(self._named(*argument.split(" ", 1)))
            elif name == "STACK_GLOBAL":
                attribute, module = stack.pop(), stack.pop()
                stack.append(self._named(module, attribute))
            elif name in ("REDUCE", "NEWOBJ"):
                arguments, callee = stack.pop(), stack.pop()
                stack.append(self._build(callee, arguments))
            elif name == "NEWOBJ_EX":
                keywords, arguments, callee = stack.pop(), stack.pop(), stack.pop()
                if keywords:
                    raise ValueError("an object with named arguments")
                stack.append(self._build(callee, arguments))
            elif name == "BINPERSID":
                stack.append(self._storage(stack.pop()))
            elif name in _STRUCTURE:
                _STRUCTURE[name](stack)
            else:
                raise UnsafePickleError(
                    f"{self.where} uses the pickle instruction {name}, which no weight file needs; "
                    "do not load it with anything else either"
                )
        raise ValueError("it ends too early")

    def _named(self, module: Any, name: Any) -> Name:
        """Return a name that is on the list.

        Raises:
            UnsafePickleError: it is not.
        """
        named = Name(str(module), str(name))
        known = (
            named in self.builders
            or named in INERT
            or named.module.split(".")[0] in INERT_PACKAGES
            or (named.module == "torch" and named.name in DTYPES)
        )
        if not known:
            raise UnsafePickleError(
                f"{self.where} asks for {named!s:.80}, which weights do not need: loading it could "
                "run code of its author; it was not run, get the weights from somewhere else"
            )
        return named

    def _build(self, callee: Any, arguments: Any) -> Any:
        """Return what a call or a construction stands for; nothing of the pickle's is called."""
        if not isinstance(callee, Name) or not isinstance(arguments, tuple):
            raise ValueError("a call of something that is no name")
        if callee in self.builders:
            return self.builders[callee](*arguments)
        if callee == PERSISTENT:
            (meta,) = arguments
            state = meta["state"]
            state = state.items if isinstance(state, Record) else state
            return Record(Name("", str(meta["class_name"])), state=dict(state))
        if callee.name == "_reconstructor":
            kind = arguments[0]
            if isinstance(kind, Name):
                return Record(kind)
            raise ValueError("an object of no class")
        return Record(callee, arguments)

    def _storage(self, identity: Any) -> Storage:
        """Return the storage of a persistent id: ("storage", type, key, place, count, ...)."""
        word, kind, key, _, count, *rest = identity
        if word != "storage" or not isinstance(kind, Name) or kind.name not in DTYPES or any(rest):
            raise ValueError("a persistent id that is no storage")
        fresh = Storage(DTYPES[kind.name], str(key), _count(count))
        storage = self.storages.setdefault(fresh.key, fresh)
        if (storage.dtype, storage.count) != (fresh.dtype, fresh.count):
            raise ValueError(f"two different storages {fresh.key!r}")
        return storage


DTYPES = {
    f"{name}Storage": dtype
    for name, dtype in {
        "Float": "float32",
        "Double": "float64",
        "Half": "float16",
        "BFloat16": "bfloat16",
        "Long": "int64",
        "Int": "int32",
        "Short": "int16",
        "Char": "int8",
        "Byte": "uint8",
        "Bool": "bool",
    }.items()
}
"""torch's names of storages, and what they hold."""

_IGNORED = {"PROTO", "FRAME"}

_LITERALS = {
    *("INT", "BININT", "BININT1", "BININT2", "LONG", "LONG1", "LONG4", "FLOAT", "BINFLOAT"),
    *("STRING", "BINSTRING", "SHORT_BINSTRING"),
    *("UNICODE", "BINUNICODE", "SHORT_BINUNICODE", "BINUNICODE8"),
    *("BINBYTES", "SHORT_BINBYTES", "BINBYTES8", "BYTEARRAY8"),
}

_CONSTANTS: dict[str, Callable[[], Any]] = {
    "NONE": lambda: None,
    "NEWTRUE": lambda: True,
    "NEWFALSE": lambda: False,
    "EMPTY_LIST": list,
    "EMPTY_TUPLE": tuple,
    "EMPTY_DICT": dict,
    "EMPTY_SET": set,
    "MARK": lambda: _MARK,
}


def _to_mark(stack: list[Any]) -> list[Any]:
    """Pop and return what lies above the last mark."""
    at = len(stack) - 1
    while stack[at] is not _MARK:
        at -= 1
        if at < 0:
            raise IndexError("no mark")
    above = stack[at + 1 :]
    del stack[at:]
    return above


def _append(stack: list[Any], values: list[Any]) -> None:
    target = stack[-1]
    if isinstance(target, Record):
        target.elements.extend(values)
    elif isinstance(target, list):
        target.extend(values)
    else:
        raise ValueError("an element of something that is no list")


def _set_items(stack: list[Any], values: list[Any]) -> None:
    target = stack[-1]
    found = target.items if isinstance(target, Record) else target
    if not isinstance(found, dict):
        raise ValueError("an item of something that is no dict")
    for key, value in zip(values[::2], values[1::2], strict=True):
        # Deep tuples as keys would exhaust the C stack when they are hashed.
        if not isinstance(key, Scalar):
            raise ValueError("a key that is no scalar")
        found[key] = value


def _members(items: Any) -> set[Any]:
    """Return a set of scalars; anything else is left out, since no weight is in a set."""
    return {item for item in items if isinstance(item, Scalar)}


def _build_state(stack: list[Any]) -> None:
    """Take the state of the object below: records keep it, others need none."""
    state = stack.pop()
    target = stack[-1]
    if isinstance(state, tuple) and len(state) == 2:  # with slots
        state = state[0]
    if isinstance(target, Record) and isinstance(state, dict):
        target.state.update({str(key): value for key, value in state.items()})


def _add_members(stack: list[Any], values: list[Any]) -> None:
    target = stack[-1]
    if not isinstance(target, set):
        raise ValueError("a member of something that is no set")
    target |= _members(values)


def _pairs(values: list[Any]) -> dict[Any, Any]:
    stack: list[Any] = [{}]
    _set_items(stack, values)
    made: dict[Any, Any] = stack[0]
    return made


def _tuple_of(count: int) -> Callable[[list[Any]], None]:
    def make(stack: list[Any]) -> None:
        if len(stack) < count:
            raise IndexError("too few values for a tuple")
        values = tuple(stack[-count:])
        del stack[-count:]
        stack.append(values)

    return make


_STRUCTURE: dict[str, Callable[[list[Any]], None]] = {
    "POP": lambda stack: None if stack.pop() is None else None,
    "POP_MARK": lambda stack: _to_mark(stack).clear(),
    "DUP": lambda stack: stack.append(stack[-1]),
    "APPEND": lambda stack: _append(stack, [stack.pop()]),
    "APPENDS": lambda stack: _append(stack, _to_mark(stack)),
    "LIST": lambda stack: stack.append(_to_mark(stack)),
    "TUPLE": lambda stack: stack.append(tuple(_to_mark(stack))),
    "TUPLE1": _tuple_of(1),
    "TUPLE2": _tuple_of(2),
    "TUPLE3": _tuple_of(3),
    "DICT": lambda stack: stack.append(_pairs(_to_mark(stack))),
    "SETITEM": lambda stack: _set_items(stack, [stack.pop(), stack.pop()][::-1]),
    "SETITEMS": lambda stack: _set_items(stack, _to_mark(stack)),
    "ADDITEMS": lambda stack: _add_members(stack, _to_mark(stack)),
    "FROZENSET": lambda stack: stack.append(_members(_to_mark(stack))),
    "BUILD": _build_state,
}


def _ordered(items: Any = ()) -> dict[Any, Any]:
    return _pairs([part for pair in items for part in pair])


def _encode(text: Any, encoding: Any) -> bytes:
    """Return bytes as old protocols write them: as a string of as many letters."""
    if not isinstance(text, str) or encoding != "latin1":
        raise ValueError("bytes in an encoding that pickle does not use")
    return text.encode("latin1")


def _tensor(storage: Any, offset: Any, size: Any, stride: Any, *_: Any) -> TensorView:
    if not isinstance(storage, Storage):
        raise ValueError("a tensor without a storage")
    sizes, strides = tuple(map(_count, size)), tuple(map(_count, stride))
    if len(sizes) != len(strides) or len(sizes) > 8:
        raise ValueError("a tensor whose sizes and strides differ in number")
    return TensorView(storage, _count(offset), sizes, strides)


def _parameter(data: Any, *_: Any) -> Any:
    if not isinstance(data, TensorView):
        raise ValueError("a parameter without a tensor")
    return data


def _count(value: Any) -> int:
    if type(value) is not int or value < 0:
        raise ValueError(f"{value!r} where a number of elements belongs")
    return value
