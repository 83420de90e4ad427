"""Pickles that would run code, or that are damaged: one sentence, and nothing happens."""

from __future__ import annotations

import functools
import io
import operator
import pickle
import struct
import zipfile
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch

from attacks.prior_convert import convert
from attacks.prior_torch_files import MAGIC, PROTOCOL, read_weights, tensor
from tasks.errors import DataError, UnsafePickleError
from tests.attacks.stylegan2_files import Persistent, nvidia_modules, random_net, write_nvidia

MARKER = "marker"


class Call:
    """Pickles as a call of a function."""

    def __init__(self, function: Any, *arguments: Any) -> None:
        self.function, self.arguments = function, arguments

    def __reduce__(self) -> tuple[Any, ...]:
        return self.function, self.arguments


def touch(path: Path) -> str:
    return f"open({str(path)!r}, 'w').close()"


def evil(path: Path) -> Call:
    return Call(exec, touch(path))


def os_system(path: Path) -> bytes:
    return b"cos\nsystem\n(S'touch " + str(path).encode() + b"'\ntR."


def posix_system(path: Path) -> bytes:
    import os

    return pickle.dumps(Call(os.system, f"touch {path}"))


def builtins_eval(path: Path) -> bytes:
    return pickle.dumps({"G_ema": Call(eval, touch(path))})


def nested_in_a_persistent_object(path: Path) -> bytes:
    with nvidia_modules():
        inner = Persistent("FullyConnectedLayer", _parameters={"weight": [(evil(path),)]})
        return pickle.dumps({"G_ema": Persistent("Generator", _modules={"mapping": inner})})


def a_call_inside_a_call(path: Path) -> bytes:
    return pickle.dumps(Call(torch._utils._rebuild_parameter, evil(path), False, None))


def an_instance_by_inst(path: Path) -> bytes:
    return b"(S'touch " + str(path).encode() + b"'\nios\nsystem\n."


def an_instance_by_obj(path: Path) -> bytes:
    return b"(cos\nsystem\nS'touch " + str(path).encode() + b"'\no."


def an_extension(path: Path) -> bytes:
    return b"\x80\x02\x82\x01)R."


def names_from_the_memo(path: Path) -> bytes:
    return (
        b"\x80\x04\x8c\x05posix\x94\x8c\x06system\x94h\x00h\x01\x93\x8c"
        + struct.pack("B", len(f"touch {path}"))
        + f"touch {path}".encode()
        + b"\x85R."
    )


def an_attribute_getter(path: Path) -> bytes:
    return pickle.dumps(Call(operator.attrgetter("system")))


def a_partial_function(path: Path) -> bytes:
    return pickle.dumps(functools.partial(exec, touch(path)))


def getattr_of_a_module(path: Path) -> bytes:
    import importlib

    return pickle.dumps(Call(getattr, Call(importlib.import_module, "os"), "system"))


def torch_load_of_bytes(path: Path) -> bytes:
    return pickle.dumps(Call(torch.load, io.BytesIO(pickle.dumps(evil(path)))))


def a_storage_of_evil_bytes(path: Path) -> bytes:
    return pickle.dumps(Call(torch.storage._load_from_bytes, pickle.dumps(evil(path))))


def a_storage_with_an_evil_end(path: Path) -> bytes:
    data = b"".join(
        pickle.dumps(part, protocol=2)
        for part in (MAGIC, PROTOCOL, {"little_endian": True}, evil(path))
    )
    return pickle.dumps(Call(torch.storage._load_from_bytes, data))


def numpys_own_exec(path: Path) -> bytes:
    return b"cnumpy.testing._private.utils\nrunstring\n(S'" + touch(path).encode() + b"'\n}tR."


def an_object_whose_state_is_evil(path: Path) -> bytes:
    return b"cargparse\nNamespace\n)\x81}S'a'\ncos\nsystem\n(S'true'\ntRsb."


def an_old_torch_file(path: Path) -> bytes:
    stream = io.BytesIO()
    torch.save({"g_ema": evil(path)}, stream, _use_new_zipfile_serialization=False)
    return stream.getvalue()


def a_new_torch_file(path: Path) -> bytes:
    stream = io.BytesIO()
    torch.save({"g_ema": {"style": evil(path)}}, stream)
    return stream.getvalue()


ATTACKS: list[Callable[[Path], bytes]] = [
    os_system,
    posix_system,
    builtins_eval,
    nested_in_a_persistent_object,
    a_call_inside_a_call,
    an_instance_by_inst,
    an_instance_by_obj,
    an_extension,
    names_from_the_memo,
    an_attribute_getter,
    a_partial_function,
    getattr_of_a_module,
    torch_load_of_bytes,
    a_storage_of_evil_bytes,
    a_storage_with_an_evil_end,
    numpys_own_exec,
    an_object_whose_state_is_evil,
    an_old_torch_file,
    a_new_torch_file,
]


@pytest.mark.parametrize("attack", ATTACKS, ids=lambda attack: attack.__name__)
def test_a_pickle_that_would_run_code_is_refused(
    attack: Callable[[Path], bytes], tmp_path: Path
) -> None:
    marker, path = tmp_path / MARKER, tmp_path / "weights.pkl"
    path.write_bytes(attack(marker))
    with pytest.raises(UnsafePickleError) as caught:
        convert(path)
    assert "\n" not in str(caught.value)
    assert str(path) in str(caught.value)
    assert not marker.exists()


@pytest.mark.parametrize(
    "attack", [os_system, posix_system, builtins_eval, names_from_the_memo, a_partial_function]
)
def test_those_pickles_would_have_run(attack: Callable[[Path], bytes], tmp_path: Path) -> None:
    """Else the test above could not fail; a partial function waits for somebody to call it."""
    marker = tmp_path / MARKER
    made = pickle.loads(attack(marker))
    if attack is a_partial_function:
        made()
    assert marker.exists()


# --- what is inert ------------------------------------------------------------------------------


def read(data: bytes, tmp_path: Path) -> Any:
    path = tmp_path / "weights.pkl"
    path.write_bytes(data)
    return read_weights(path)


def test_plain_data_comes_back_as_it_was(tmp_path: Path) -> None:
    data = {
        "a": [1, -2, 10**30, 2.5, True, None, "é", b"\x00\xff", (1, (2, 3, 4, 5))],
        7: {"set": {1, 2}, "frozen": frozenset({"x"})},
    }
    for protocol in range(6):
        assert read(pickle.dumps(data, protocol=protocol), tmp_path) == data


def test_other_objects_are_records_with_their_state(tmp_path: Path) -> None:
    found = read(pickle.dumps({"gain": np.float64(0.5), "array": np.zeros(3)}), tmp_path)
    assert str(found["gain"].of) in (
        "numpy._core.multiarray.scalar",
        "numpy.core.multiarray.scalar",
    )
    assert found["array"].of.name == "_reconstruct"


def test_state_given_to_a_name_changes_nothing(tmp_path: Path) -> None:
    """An unpickler would set an attribute of the function here."""
    name = b"\x80\x02ctorch._utils\n_rebuild_tensor_v2\n"
    read(name + b"}U\x08__code__K\x01sb.", tmp_path)
    read(name + b"N}U\x0c__defaults__K\x01s\x86b.", tmp_path)
    assert vars(torch._utils._rebuild_tensor_v2) == {}
    assert torch._utils._rebuild_tensor_v2.__defaults__ == (None,)


# --- what is damaged ----------------------------------------------------------------------------


def test_a_file_that_was_cut_or_changed_is_an_error_of_ours(tmp_path: Path) -> None:
    rng = np.random.default_rng(0)
    whole = write_nvidia(random_net([2, 2, 2, 2], 2, 2, 1), tmp_path / "g.pkl").read_bytes()
    path, sentences = tmp_path / "changed.pkl", []
    for turn in range(90):
        data = bytearray(whole)
        if turn % 3 == 0:
            del data[int(rng.integers(len(data))) :]
        else:
            for _ in range(1 + turn % 5):
                data[int(rng.integers(len(data)))] = int(rng.integers(256))
        path.write_bytes(data)
        try:
            convert(path)
        except DataError as error:
            sentences.append(str(error))
    assert len(sentences) > 30  # a changed weight is no damage that can be seen
    assert not any("\n" in sentence for sentence in sentences)


def storage(count: int = 4) -> torch.storage.TypedStorage:
    made: torch.storage.TypedStorage = torch.zeros(count)._typed_storage()
    return made


@pytest.mark.parametrize(
    ("offset", "size", "stride"),
    [
        (0, (5,), (1,)),  # longer than the storage
        (3, (2,), (1,)),  # ends behind it
        (0, (2, 2), (4, 1)),  # steps over it
        (0, (1 << 40,), (0,)),  # one number, repeated until the memory is full
    ],
)
def test_a_tensor_beyond_its_numbers_is_an_error(
    offset: int, size: tuple[int, ...], stride: tuple[int, ...], tmp_path: Path
) -> None:
    call = Call(torch._utils._rebuild_tensor_v2, storage(), offset, size, stride, False, None)
    view = read(pickle.dumps(call), tmp_path)
    with pytest.raises(DataError, match="x reaches beyond the numbers"):
        tensor(view, "x")


@pytest.mark.parametrize(
    "arguments",
    [
        (storage(), -1, (2,), (1,)),
        (storage(), 0, (2,), (-1,)),
        (storage(), 0, (2.0,), (1,)),
        (storage(), 0, (2, 2), (1,)),
        (3, 0, (2,), (1,)),
    ],
)
def test_a_tensor_of_nonsense_is_an_error(arguments: tuple[Any, ...], tmp_path: Path) -> None:
    with pytest.raises(DataError, match="is not a pickle that can be read"):
        read(pickle.dumps(Call(torch._utils._rebuild_tensor_v2, *arguments)), tmp_path)


def test_keys_that_would_exhaust_the_stack_are_refused(tmp_path: Path) -> None:
    deep = b"\x80\x02})" + b"\x85" * 100_000 + b"K\x01s."
    with pytest.raises(DataError, match="a key that is no scalar"):
        read(deep, tmp_path)


def test_a_compressed_archive_is_refused(tmp_path: Path) -> None:
    path = tmp_path / "bomb.pt"
    with zipfile.ZipFile(path, "w", zipfile.ZIP_DEFLATED) as archive:
        archive.writestr("archive/data.pkl", pickle.dumps({}) + bytes(10**6))
    with pytest.raises(DataError, match="is compressed"):
        read_weights(path)
    with zipfile.ZipFile(path, "w") as archive:
        archive.writestr("something.txt", "else")
    with pytest.raises(DataError, match="not one that torch.save wrote"):
        read_weights(path)


def test_an_archive_without_its_numbers_is_refused(tmp_path: Path) -> None:
    whole, path = tmp_path / "whole.pt", tmp_path / "part.pt"
    torch.save({"g_ema": torch.ones(3)}, whole)
    with zipfile.ZipFile(whole) as full, zipfile.ZipFile(path, "w") as part:
        for name in full.namelist():
            if "/data/" not in name:
                part.writestr(name, full.read(name))
    with pytest.raises(DataError, match="lacks the numbers '0'"):
        read_weights(path)
