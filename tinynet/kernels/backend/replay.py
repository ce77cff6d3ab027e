"""Launch lists: many kernel calls in one call from Python.

Calling a kernel from Python costs about half a microsecond, most of it for looking at the arguments; a small kernel
itself takes a tenth of that. A plan calls the same kernels with the same arrays again and again, so their addresses
can be written down once: a list of calls becomes an array of 64-bit numbers,

    thunk, n, n arguments,   thunk, n, n arguments,   …   0

which `run`, a loop in machine code, walks through. A thunk is the machine code that passes such numbers to a kernel:
one for each kernel and types of arguments, however many plans there are.
"""

import ctypes
import functools
import struct

import numba
import numpy as np
from llvmlite import binding, ir

from .compiled import INTERPRETED, compiling

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
        functions += run_of(group)
        group = []
        functions.append(functools.partial(kernel, *args))
    return functions + run_of(group)


def entry_point(kernel, args):
    """(thunk, arguments as numbers) of a compiled kernel; None for other functions."""
    if not hasattr(kernel, "overloads"):
        return None
    compiled = kernel.overloads.get(tuple(map(numba.typeof, args)))
    if compiled is None:
        return None
    numbers = [n for x in args for n in as_numbers(x)]
    return (thunk(compiled), numbers) if len(numbers) == len(function_type(compiled).args) - 2 else None


def as_numbers(x):
    """An argument as the numbers that Numba passes: of an array its owner, size, item size, address, shape, strides."""
    if isinstance(x, np.ndarray):
        return [0, 0, x.size, x.itemsize, x.ctypes.data, *x.shape, *x.strides]
    if isinstance(x, (float, np.floating)):
        return [int.from_bytes(struct.pack("<f" if isinstance(x, np.float32) else "<d", x), "little", signed=False)]
    return [int(x or 0)]


def run_of(group):
    """[the calls as one function], or [] of none."""
    if not group:
        return []
    numbers, ends = [], []
    for _, _, address, args in group:
        numbers += [address, len(args), *args]
        ends.append(len(numbers))
    program = np.array([n & 0xffffffffffffffff for n in (*numbers, 0)], np.uint64)
    call, address = runner(), program.ctypes.data

    def run(program=program):
        end = call(address)
        if end:
            kernel, args = group[ends.index(end)][:2]
            kernel(*args)  # again, from Python, where it raises what it has to say

    return [run]


# -------------------------------------------------------------------------------------------------------- machine code

def function_type(compiled):
    return compiled.target_context.call_conv.get_function_type(compiled.signature.return_type,
                                                                compiled.signature.args)


def machine_code(function_type, build):
    """The address of a new function, whose body `build(builder, *arguments)` writes."""
    module = ir.Module()
    module.triple = binding.get_process_triple()
    function = ir.Function(module, function_type, "function")
    build(ir.IRBuilder(function.append_basic_block()), *function.args)
    with compiling:
        engine = binding.create_mcjit_compiler(
            binding.parse_assembly(str(module)), binding.Target.from_default_triple().create_target_machine(opt=2))
        engine.finalize_object()
    engines.append(engine)
    return engine.get_function_address("function")


thunks, engines = {}, []  # {address of a kernel: its thunk}, and what holds their machine code


def thunk(compiled):
    """The address of the function (numbers) that calls a compiled kernel, and returns 0 where it has done its work."""
    kind = function_type(compiled)
    address = compiled.library.get_pointer_to_function(compiled.fndesc.llvm_func_name)
    if address in thunks:
        return thunks[address]

    def build(builder, numbers):
        scratch = builder.alloca(i64, 4)  # where a kernel would leave its result, or what went wrong
        args = [builder.bitcast(scratch, t) for t in kind.args[:2]]
        for i, t in enumerate(kind.args[2:]):
            n = builder.load(builder.gep(numbers, [i64(i)]))
            if isinstance(t, ir.PointerType):
                args.append(builder.inttoptr(n, t))
            elif isinstance(t, ir.IntType):
                args.append(n if t.width == 64 else builder.trunc(n, t))
            else:
                args.append(builder.bitcast(n if isinstance(t, ir.DoubleType) else builder.trunc(n, i32), t))
        status = builder.call(builder.inttoptr(i64(address), kind.as_pointer()), args)
        done = builder.or_(builder.icmp_signed("==", status, i32(OK)), builder.icmp_signed("==", status, i32(NONE)))
        builder.ret(builder.select(done, i64(0), i64(1)))

    thunks[address] = machine_code(ir.FunctionType(i64, [i64.as_pointer()]), build)
    return thunks[address]


@functools.cache
def runner():
    """The function (address of a list) that runs it; returns 0, or where the list goes on after a call that failed."""
    thunk_type = ir.FunctionType(i64, [i64.as_pointer()])

    def build(builder, numbers):
        start, loop, work, end = builder.block, *(builder.append_basic_block() for _ in range(3))
        builder.branch(loop)
        builder.position_at_end(loop)
        i = builder.phi(i64)
        i.add_incoming(i64(0), start)
        address = builder.load(builder.gep(numbers, [i]))
        builder.cbranch(builder.icmp_unsigned("==", address, i64(0)), end, work)
        builder.position_at_end(work)
        n = builder.load(builder.gep(numbers, [builder.add(i, i64(1))]))
        first = builder.add(i, i64(2))
        failed = builder.call(builder.inttoptr(address, thunk_type.as_pointer()), [builder.gep(numbers, [first])])
        after = builder.add(first, n)
        i.add_incoming(after, work)
        with builder.if_then(builder.icmp_unsigned("!=", failed, i64(0)), likely=False):
            builder.ret(after)
        i.incomings[-1] = (after, builder.block)
        builder.branch(loop)
        builder.position_at_end(end)
        builder.ret(i64(0))

    return ctypes.CFUNCTYPE(ctypes.c_int64, ctypes.c_void_p)(
        machine_code(ir.FunctionType(i64, [i64.as_pointer()]), build))
