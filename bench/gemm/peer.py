"""A peer's side of bench/gemm/compare.py: matrix products timed on request. Runs in the Python that compare.py is given.

    peer.py openblas LIBRARY FOLDER THREADS          ctypes only; OPENBLAS_CORETYPE and OPENBLAS_NUM_THREADS come from outside
    peer.py torch-float32|torch-bf16|torch-int8 - FOLDER THREADS
    peer.py onnxruntime-float32|onnxruntime-int8 - FOLDER THREADS

Answers lines "M N K SECONDS" of standard input with one JSON object: median seconds of a product, corners of C. int8 of
torch has both operands quantised beforehand (it has no other product); that of ONNX Runtime quantises the activations.
The second operand is constant for ONNX Runtime, which may pack it; the others take it as it is.
"""
import array
import ctypes
import json
import sys
import time

kind, library, folder, threads = sys.argv[1], sys.argv[2], sys.argv[3], int(sys.argv[4])


def floats(name, rows, cols):
    data = array.array("f")
    with open(f"{folder}/{name}-{rows}x{cols}.bin", "rb") as f:
        data.fromfile(f, rows * cols)
    return data


def openblas():
    blas = ctypes.CDLL(library)
    blas.openblas_set_num_threads(threads)
    for name in ("openblas_get_config", "openblas_get_corename"):
        getattr(blas, name).restype = ctypes.c_char_p
    version = blas.openblas_get_config().decode().strip() + ", core " + blas.openblas_get_corename().decode()

    def load(m, n, k):
        a, b, c = floats("a", m, k), floats("b", k, n), array.array("f", bytes(4 * m * n))
        pa, pb, pc = (ctypes.c_void_p(x.buffer_info()[0]) for x in (a, b, c))
        one, zero, row_major, no_trans = ctypes.c_float(1), ctypes.c_float(0), 101, 111
        keep = (a, b, c)

        def product():
            blas.cblas_sgemm(row_major, no_trans, no_trans, m, n, k, one, pa, k, pb, n, zero, pc, n)
            return keep

        return product, lambda: [c[0], c[n - 1], c[(m - 1) * n], c[m * n - 1]]

    return version, load


def torch_():
    import torch
    torch.set_num_threads(threads)

    def load(m, n, k):
        a = torch.frombuffer(floats("a", m, k), dtype=torch.float32).view(m, k)
        b = torch.frombuffer(floats("b", k, n), dtype=torch.float32).view(k, n)
        scale = 1.0
        if kind == "torch-bf16":
            a, b = a.bfloat16(), b.bfloat16()
            c = torch.zeros(m, n, dtype=torch.bfloat16)
        elif kind == "torch-int8":
            a, b = ((x * 127).round().to(torch.int8) for x in (a, b))
            c, scale = torch.zeros(m, n, dtype=torch.int32), 1 / 127 ** 2
        else:
            c = torch.zeros(m, n)
        multiply = torch._int_mm if kind == "torch-int8" else torch.mm
        return lambda: multiply(a, b, out=c), lambda: [scale * float(c[i, j]) for i in (0, -1) for j in (0, -1)]

    return "PyTorch " + torch.__version__ + ", " + torch.backends.cpu.get_cpu_capability(), load


def onnxruntime_():
    import numpy
    import onnx
    import onnxruntime

    def load(m, n, k):
        a = numpy.frombuffer(floats("a", m, k), numpy.float32).reshape(m, k)
        b = numpy.frombuffer(floats("b", k, n), numpy.float32).reshape(k, n)
        if kind == "onnxruntime-int8":
            scale = numpy.abs(b).max(axis=0) / 127
            weights = [("b", numpy.round(b / scale).astype(numpy.int8)), ("scale", scale.astype(numpy.float32)), ("zero", numpy.zeros(n, numpy.int8))]
            node = onnx.helper.make_node("DynamicQuantizeMatMul", ["a", "b", "scale", "zero"], ["c"], domain="com.microsoft")
        else:
            weights = [("b", b)]
            node = onnx.helper.make_node("MatMul", ["a", "b"], ["c"])
        info = onnx.helper.make_tensor_value_info
        graph = onnx.helper.make_graph([node], "product", [info("a", onnx.TensorProto.FLOAT, [m, k])], [info("c", onnx.TensorProto.FLOAT, [m, n])],
                                       [onnx.numpy_helper.from_array(v, name) for name, v in weights])
        opsets = [onnx.helper.make_opsetid("", 17), onnx.helper.make_opsetid("com.microsoft", 1)]
        model = onnx.helper.make_model(graph, opset_imports=opsets, ir_version=9)
        o = onnxruntime.SessionOptions()
        o.intra_op_num_threads = threads
        # Threads that spin between products would disturb the other side's.
        o.add_session_config_entry("session.intra_op.allow_spinning", "1")
        o.add_session_config_entry("session.force_spinning_stop", "1")
        session = onnxruntime.InferenceSession(model.SerializeToString(), o, providers=["CPUExecutionProvider"])
        # Bound once: no allocation of C within the time.
        c = numpy.zeros((m, n), numpy.float32)
        binding = session.io_binding()
        binding.bind_cpu_input("a", a)
        value = onnxruntime.OrtValue.ortvalue_from_numpy(c)
        binding.bind_ortvalue_output("c", value)

        def corners():
            x = value.numpy()
            return [float(x[i, j]) for i in (0, -1) for j in (0, -1)]

        return lambda: session.run_with_iobinding(binding), corners

    return "ONNX Runtime " + onnxruntime.__version__, load


version, load = openblas() if kind == "openblas" else torch_() if kind.startswith("torch-") else onnxruntime_()
print(json.dumps({"version": version}), flush=True)
size = None
for line in sys.stdin:
    m, n, k, seconds = line.split()
    new = int(m), int(n), int(k)
    if new != size:
        size = new
        product, corners = load(*size)
        product()
    times, began = [], time.perf_counter()
    while len(times) < 2 or time.perf_counter() - began < float(seconds):
        start = time.perf_counter()
        product()
        times.append(time.perf_counter() - start)
    print(json.dumps({"seconds": sorted(times)[len(times) // 2], "corners": corners()}), flush=True)
