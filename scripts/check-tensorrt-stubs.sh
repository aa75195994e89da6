#!/usr/bin/env bash
# Hold stubs/tensorrt to NVIDIA's own bindings of TensorRT 10 and 11: every class, method, parameter and constant has to
# be there. The bindings come from PyPI by name; the libraries behind them are NVIDIA's own and are not needed to ask for
# names: empty ones are made here, in a temporary folder, that only let the bindings be imported. On each of them our own
# modules are loaded, too, and do what needs no device. Needs gcc, no GPU.
set -euo pipefail
cd "$(dirname "$0")/.."
python=${PYTHON:-.venv/bin/python}
work=$(mktemp -d)
trap 'rm -rf "$work"' EXIT
for name in createInferBuilder createInferRefitter createInferRuntime createNvOnnxParserRefitter createNvOnnxParser; do
    echo "void *${name}_INTERNAL(void) { return 0; }"
done > "$work/empty.c"
for name in getBuilderPluginRegistry getPluginRegistry getNvOnnxParserVersion initLibNvInferPlugins; do
    echo "void *$name(void) { return 0; }"
done >> "$work/empty.c"
for version in 10.0.1 10.16.1.11 11.0.0.114 11.4.0.106; do
    major=${version%%.*}
    for library in nvinfer nvinfer_plugin nvonnxparser; do
        gcc -shared -fPIC -o "$work/lib$library.so.$major" "$work/empty.c" -Wl,-soname,"lib$library.so.$major"
    done
    "$python" -m pip install --quiet --no-deps --target "$work/$version" "tensorrt-cu12-bindings==$version"
    LD_LIBRARY_PATH=$work "$python" - "$work/$version" "$version" <<'PYTHON'
import ast, re, sys
folder, version = sys.argv[1:]
sys.path.insert(0, folder)
import tensorrt_bindings as bindings

missing, seen = [], 0
def look(node, owner, prefix):
    global seen
    for each in node.body:
        if isinstance(each, ast.ClassDef):
            seen += 1
            found = getattr(owner, each.name, None)
            if found is None:
                missing.append(prefix + each.name)
            else:
                look(each, found, f"{prefix}{each.name}.")
        elif isinstance(each, ast.FunctionDef):
            seen += 1
            found = getattr(owner, each.name, None)
            signatures = found.__doc__ or "" if found else ""
            names = [argument.arg for argument in each.args.args[1:]]
            if found is None or not (each.name.startswith("__") or all(re.search(rf"\b{n}: ", signatures) for n in names)):
                missing.append(f"{prefix}{each.name}({', '.join(names)})")
        elif isinstance(each, ast.AnnAssign):
            seen += 1
            if not hasattr(owner, each.target.id):
                missing.append(prefix + each.target.id)
look(ast.parse(open("stubs/tensorrt/__init__.pyi").read()), bindings, "")
if missing:
    sys.exit(f"TensorRT {version} lacks: {'; '.join(missing)}")
print(f"TensorRT {version} has all {seen} names")

sys.path.insert(0, ".")
sys.modules["tensorrt"] = bindings
from monitor.errors import EngineUnavailable
from monitor.scoring.tensorrt import load_library
from monitor.scoring.tensorrt_build import Log, _ProgressMonitor, build_plan
from monitor.scoring.tensorrt_part import Part

assert load_library().__version__ == version
assert bindings.Dims([4, 3])[:] == (4, 3)
log, told = Log(), []
log.log(bindings.ILogger.Severity.ERROR, "OutOfMemory:\nno room")
assert log.reason == "the GPU is out of memory: OutOfMemory: no room"
progress = _ProgressMonitor(lambda *step: told.append(step))
progress.phase_start("all", None, 2)
progress.phase_start("part", "all", 1)
assert progress.step_complete("part", 0) and progress.step_complete("all", 0)
progress.phase_finish("part")
progress.phase_finish("all")
assert told == [("all", 0, 2), ("all", 1, 2), ("all", 2, 2)]
starts = (lambda: build_plan(None, {}, (), timing_cache=None, on_progress=None), lambda: Part(b"", 1, {}, {}))
for start in starts:  # the empty libraries give no builder and no runtime
    try:
        start()
    except EngineUnavailable as exc:
        assert "cannot start" in exc.reason
    else:
        sys.exit("it started without a library")
print(f"TensorRT {version} loads what uses it")
PYTHON
done
