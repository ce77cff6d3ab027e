"""Launch lists: kernel calls as machine code, one function that makes call after call, its arguments written into it.

Calling a kernel from Python costs about half a microsecond, most of it for looking at the arguments; a small kernel
itself takes a tenth of that. A plan calls the same kernels with the same arrays again and again, so their addresses
can be written down once.
"""

import ctypes
import functools

import numba
import numpy as np
from llvmlite import binding, ir

from .compiled import INTERPRETED

i32, i64 = ir.IntType(32), ir.IntType(64)
OK, NONE = 0, -2  # what a kernel returns to say that it has done its work


def launch_list(calls):
    """[(kernel, arguments), …] as a list of functions without arguments that do the same: consecutive calls of compiled
    kernels become one of them."""
    functions, group = [], []
    for kernel, args in calls:
        entry = None if INTERPRETED else entry_point(kernel, args)
        if entry:
            group.append((kernel, args, *entry))
            continue
        functions += machine_code(group)
        group = []
        functions.append(functools.partial(kernel, *args))
    return functions + machine_code(group)


def entry_point(kernel, args):
    """(address, type, numbers): where the compiled kernel begins and what it is passed; None for other functions."""
    if not hasattr(kernel, "overloads"):
        return None
    compiled = kernel.overloads.get(tuple(map(numba.typeof, args)))
    if compiled is None:
        return None
    kind = compiled.target_context.call_conv.get_function_type(compiled.signature.return_type,
                                                                compiled.signature.args)
    numbers = [n for x in args for n in as_numbers(x)]
    address = compiled.library.get_pointer_to_function(compiled.fndesc.llvm_func_name)
    return (address, kind, numbers) if address and len(numbers) == len(kind.args) - 2 else None


def as_numbers(x):
    """An argument as the numbers that Numba passes: of an array its owner, size, item size, address, shape, strides."""
    if isinstance(x, np.ndarray):
        return [0, 0, x.size, x.itemsize, x.ctypes.data, *x.shape, *x.strides]
    return [int(bool(x))] if x is None or isinstance(x, bool) else [x]


def machine_code(group):
    """[the calls as one function], or [] of none."""
    if not group:
        return []
    module = ir.Module()
    module.triple = binding.get_process_triple()
    function = ir.Function(module, ir.FunctionType(i32, []), "calls")
    builder = ir.IRBuilder(function.append_basic_block())
    scratch = builder.alloca(i64, 4)  # where a kernel would leave its result, or what went wrong
    for i, (_, _, address, kind, numbers) in enumerate(group):
        results = [builder.bitcast(scratch, t) for t in kind.args[:2]]
        status = builder.call(builder.inttoptr(ir.Constant(i64, address), kind.as_pointer()), [
            *results, *(ir.Constant(i64, n).inttoptr(t) if isinstance(t, ir.PointerType) else ir.Constant(t, n)
                        for t, n in zip(kind.args[2:], numbers))])
        failed = builder.and_(builder.icmp_signed("!=", status, i32(OK)), builder.icmp_signed("!=", status, i32(NONE)))
        with builder.if_then(failed, likely=False):
            builder.ret(i32(i))
    builder.ret(i32(-1))
    engine = binding.create_mcjit_compiler(
        binding.parse_assembly(str(module)), binding.Target.from_default_triple().create_target_machine(opt=1))
    engine.finalize_object()
    code = ctypes.CFUNCTYPE(ctypes.c_int32)(engine.get_function_address("calls"))

    def run(engine=engine):
        failed = code()
        if failed >= 0:
            kernel, args = group[failed][:2]
            kernel(*args)  # again, from Python, where it raises what it has to say

    return [run]
