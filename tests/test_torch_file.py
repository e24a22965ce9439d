"""PyTorch's files of weights, against PyTorch itself."""

import io
import pickle
import zipfile
from collections import OrderedDict

import numpy as np
import pytest
import torch

from tradax.errors import ModelFileError
from tradax.sb3 import _opcodes, _torch_file
from tradax.sb3._opcodes import Call, Global

NESTED = OrderedDict(
    weight=np.arange(6, dtype=np.float32).reshape(2, 3).T,
    plain=[1, -2.5, None, True, (1, 2**40, "text")],
    state={0: {"step": np.float32(3), "count": np.int64(7)}, 1: np.array([1.5])},
    empty=np.zeros((0, 3), np.float32),
)


class Canary:
    """Its pickle creates a file when it is loaded."""

    def __init__(self, path):
        self.path = path

    def __reduce__(self):
        return (open, (str(self.path), "w"))


def saved(value) -> bytes:
    buffer = io.BytesIO()
    torch.save(value, buffer)
    return buffer.getvalue()


def with_code(code: bytes) -> bytes:
    """A file of weights with other byte code."""
    buffer = io.BytesIO()
    with (
        zipfile.ZipFile(io.BytesIO(saved({"w": torch.ones(3)}))) as old,
        zipfile.ZipFile(buffer, "w") as new,
    ):
        for name in old.namelist():
            new.writestr(name, code if name.endswith("data.pkl") else old.read(name))
    return buffer.getvalue()


def test_plain_values_are_written_as_pickle_reads_them():
    value = {"a": [1, 300, -(2**31), 2**80, 0.5, None, True, "é"], "b": OrderedDict(c=(1, ()))}
    assert pickle.loads(_opcodes.write(value)) == value  # noqa: S301


def test_torch_loads_what_is_written():
    loaded = torch.load(io.BytesIO(_torch_file.write(NESTED)), weights_only=True)
    assert list(loaded) == list(NESTED)
    assert loaded["plain"] == NESTED["plain"]
    assert np.array_equal(loaded["weight"], NESTED["weight"])
    assert loaded["state"][0]["count"] == 7
    assert loaded["state"][0]["step"].shape == ()
    assert loaded["state"][1].dtype == torch.float64
    assert loaded["empty"].shape == (0, 3)


def test_what_torch_saves_is_read():
    matrix = torch.arange(12.0).reshape(3, 4)
    parameter = torch.nn.Parameter(matrix[1:, 2])
    optimiser = torch.optim.Adam([parameter])
    parameter.sum().backward()
    optimiser.step()
    value = {
        "shared": [matrix, matrix.T, matrix[1], matrix[:, ::2]],
        "parameter": parameter,
        "module": torch.nn.Linear(2, 3).state_dict(),
        "optimiser": optimiser.state_dict(),
        "long": torch.tensor([1, 2]),
    }
    read = _torch_file.read(saved(value), "x.pth")
    for found, wanted in zip(read["shared"], value["shared"], strict=True):
        assert np.array_equal(found, wanted)
    assert np.array_equal(read["parameter"], parameter.detach())
    assert read["module"]["weight"].shape == (3, 2)
    assert read["optimiser"]["state"][0]["exp_avg"].dtype == np.float32
    assert read["optimiser"]["param_groups"][0]["betas"] == (0.9, 0.999)
    assert read["long"].dtype == np.int64


def test_no_code_of_a_file_runs(tmp_path):
    canary = tmp_path / "canary"
    for protocol in (0, 2, 4, 5):
        code = pickle.dumps({"w": Canary(canary)}, protocol)
        with pytest.raises(ModelFileError, match=r"refused|instruction|calls"):
            _torch_file.read(with_code(code), "x.pth")
    for name in ("os system", "builtins eval", "collections namedtuple", "torch load"):
        code = _opcodes.write(Call(Global(*name.split()), ("1",)))
        with pytest.raises(ModelFileError, match="nothing of it has run"):
            _torch_file.read(with_code(code), "x.pth")
    assert not canary.exists()


def storage(count=3, key="0", kind="FloatStorage"):
    identity = ("storage", Global("torch", kind), key, "cpu", count)
    return _opcodes.Persistent(identity)


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        ((storage(), 0, (4,), (1,)), "larger than the numbers"),
        ((storage(), 1, (3,), (1,)), "larger than the numbers"),
        ((storage(), 0, (2, 2), (2, 1)), "larger than the numbers"),
        ((storage(), 0, (2**39, 2**39), (0, 0)), "larger than the numbers"),
        ((storage(), 0, (3,), (-1,)), "malformed"),
        ((storage(), -1, (3,), (1,)), "malformed"),
        ((storage(), 0, (3,), (1, 1)), "malformed"),
        (("text", 0, (3,), (1,)), "malformed"),
        ((storage(count=4), 0, (3,), (1,)), "is not of 4"),
        ((storage(kind="DoubleStorage"), 0, (1,), (1,)), "damaged|is not of"),
        ((storage(key="../../x"), 0, (3,), (1,)), "no storage"),
        ((storage(key="9"), 0, (3,), (1,)), "has no archive/data/9"),
    ],
)
def test_a_tensor_that_does_not_fit_its_numbers_is_refused(arguments, message):
    rebuild = Global("torch._utils", "_rebuild_tensor_v2")
    code = _opcodes.write({"w": Call(rebuild, (*arguments, False, OrderedDict()))})
    with pytest.raises(ModelFileError, match=message):
        _torch_file.read(with_code(code), "x.pth")


def test_a_file_cannot_stand_for_many_times_its_size():
    rebuild = Global("torch._utils", "_rebuild_tensor_v2")
    one = Call(rebuild, (storage(), 0, (2**14, 3), (0, 1), False, OrderedDict()))
    with pytest.raises(ModelFileError, match="larger"):
        _torch_file.read(with_code(_opcodes.write([one])), "x.pth")
    buffer = io.BytesIO()
    with zipfile.ZipFile(buffer, "w", zipfile.ZIP_DEFLATED) as archive:
        archive.writestr("archive/data.pkl", bytes(2**20))
    with pytest.raises(ModelFileError, match="compressed"):
        _torch_file.read(buffer.getvalue(), "x.pth")


def test_hostile_code_is_refused_without_delay():
    deep = b"\x80\x02" + b"N" + b"\x85" * 30_000
    rebuild = Global("torch._utils", "_rebuild_tensor_v2")
    axes = Call(rebuild, (storage(), 0, (2,) * 5000, (0,) * 5000, False, OrderedDict()))
    for code in (
        deep + b")R.", deep + b"Q.", b"\x80\x02" + b"(" * 30_000 + b"t" * 30_000 + b")R.",
        _opcodes.write(axes),
    ):  # fmt: skip
        with pytest.raises(ModelFileError):
            _torch_file.read(with_code(code), "x.pth")


def test_damaged_files_give_one_clear_error():
    good = saved({"w": torch.ones(3)})
    for bad in (b"", b"PK", good[: len(good) // 2], pickle.dumps({}), with_code(b"\x80\x02K")):
        with pytest.raises(ModelFileError, match=r"x\.pth"):
            _torch_file.read(bad, "x.pth")
    for code in (b".", b"\x80\x02t.", b"\x80\x02)R.", b"\x80\x02N}u.", b"\x80\x02h\x05.", b"(("):
        with pytest.raises(ModelFileError, match=r"x\.pth"):
            _torch_file.read(with_code(code), "x.pth")
