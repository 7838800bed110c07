"""Compiles the stand-in from the headers and libraries of the torch that is installed. Imports no torch."""

from __future__ import annotations

import importlib.util
import re
import shutil
import subprocess
from pathlib import Path

HERE = Path(__file__).resolve().parent
LIBRARIES = ("torch_cuda", "c10_cuda", "torch_python", "torch_cuda_linalg", "torch_cpu", "torch")
ANSWERED = re.compile(r"(cuda|__cuda(Launch|Get)Kernel|cublas|cudnn|cusolver|cusparse|curand|cufft|nccl)\w*")
# Of the libraries' functions, those that compute something.
COMPUTES = re.compile(
    r"cublas(Lt)?(?!Create|Destroy|Get|Set|.*(Desc|Layout|Preference|Heuristic))\w+"
    r"|cudnn(Convolution|BatchNormalization|Pooling|Activation|Softmax|Normalization)(Forward|Backward)\w*"
    r"|cudnnBackendExecute"
)
OLDEST_CUDA = 13000  # as CUDA's headers write their version; before, some functions had other parameters
OK, INVALID_USAGE = 0, 5
# What torch asks of the driver itself when it initialises.
DRIVER = {
    "cuDeviceGetCount": "(int *count) { *count = 1; return 0; }",
    "cuDriverGetVersion": "(int *version) { *version = 13000; return 0; }",
    "cuDeviceGet": "(int *device, int number) { *device = number; return 0; }",
    "cuCtxGetCurrent": "(void **context) { static int one; *context = &one; return 0; }",
    "cuDevicePrimaryCtxGetState": "(int device, unsigned *flags, int *active) { *flags = 0; *active = 1; return 0; }",
}


def why_not() -> str | None:
    """Why it cannot be built here, or None."""
    for tool in ("cc", "nm"):
        if not shutil.which(tool):
            return f"no {tool} to build the stand-in for CUDA with"
    torch = _torch()
    if torch is None or not (torch / "lib" / "libtorch_cuda.so").exists():
        return "torch is no CUDA build"
    headers = _headers()
    if headers is None or not (headers.parents[1] / "cudnn" / "include").exists():
        return "the headers of CUDA and cuDNN are not beside torch"
    defined = re.search(r"#define CUDART_VERSION\s+(\d+)", (headers / "cuda_runtime_api.h").read_text())
    if defined and int(defined[1]) < OLDEST_CUDA:
        return f"torch is built for CUDA {int(defined[1]) // 1000}, and the stand-in for {OLDEST_CUDA // 1000}"
    return None


def build(folder: Path) -> None:
    """Write libstandin_cuda.so, libcuda.so.1 and libnvidia-ml.so.1 into the folder."""
    headers = _headers()
    assert headers is not None
    folders = [HERE / "include", headers, *headers.parents[1].glob("cudnn/include")]
    compiler = ["cc", "-w", "-O1", "-g", "-fPIC", *(f"-I{path}" for path in folders)]
    sources = sorted(HERE.glob("*.c"))
    objects = [folder / f"{source.stem}.o" for source in sources]
    for source, compiled in zip(sources, objects, strict=True):
        subprocess.run([*compiler, "-c", source, "-o", compiled], check=True)
    present = {name for compiled in objects for name in _symbols(compiled, "--defined-only")}
    missing = sorted(name for name in asked() - present if not name.startswith("__"))
    rest = folder / "rest.c"
    rest.write_text(f'#include "{HERE / "runtime.h"}"\n' + "".join(map(_succeeds, missing)))
    subprocess.run([*compiler, "-shared", *objects, rest, "-lpthread", "-o", folder / "libstandin_cuda.so"], check=True)
    driver = set(re.findall(r"CUDAAPI (cu[A-Z]\w+)", (headers / "cuda.h").read_text()))
    driver |= {name + version for name in driver for version in ("_v2", "_v3")} | set(DRIVER)
    (folder / "driver.c").write_text(
        "".join(f"int {name}{DRIVER.get(name, '(void) { return 0; }')}\n" for name in sorted(driver))
    )
    shared = ["-shared", "-Wl,-soname,libcuda.so.1"]
    subprocess.run([*compiler, *shared, folder / "driver.c", "-o", folder / "libcuda.so.1"], check=True)
    build_nvml(folder)


def build_nvml(folder: Path) -> None:
    """Write libnvidia-ml.so.1 into the folder."""
    source = HERE.parent / "standin_nvml.c"
    subprocess.run(["cc", "-shared", "-fPIC", "-Wall", "-o", folder / "libnvidia-ml.so.1", source], check=True)


def asked() -> set[str]:
    """The functions of CUDA and its libraries that torch's libraries call."""
    torch = _torch()
    assert torch is not None
    paths = [torch / "lib" / f"lib{name}.so" for name in LIBRARIES]
    names = {name for path in paths if path.exists() for name in _symbols(path, "--dynamic", "--undefined-only")}
    return {name for name in names if ANSWERED.fullmatch(name)}


def _succeeds(name: str) -> str:
    """A function of which nothing more is needed; of NCCL's, none is passed over."""
    counted = "standin_counted.library_calls++; " if COMPUTES.fullmatch(name) else ""
    return f"int {name}(void) {{ {counted}return {INVALID_USAGE if name.startswith('nccl') else OK}; }}\n"


def _symbols(library: Path, *how: str) -> set[str]:
    done = subprocess.run(["nm", *how, "--format=posix", library], capture_output=True, text=True, check=True)
    return {line.split()[0].partition("@")[0] for line in done.stdout.splitlines()}


def _torch() -> Path | None:
    found = importlib.util.find_spec("torch")
    return Path(found.origin).parent if found is not None and found.origin else None


def _headers() -> Path | None:
    """Where torch's wheels have put the CUDA runtime's headers."""
    torch = _torch()
    beside = [] if torch is None else [*(torch.parent / "nvidia").glob("*/include")]
    return next((path for path in sorted(beside) if (path / "cuda_runtime_api.h").exists()), None)
