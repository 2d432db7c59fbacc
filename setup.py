"""Build the native module with CMake, without torch. WARPDRAW_CUDA=auto|on|off says whether to build CUDA kernels."""

import os
import shutil
import subprocess
import sys
from pathlib import Path

import pybind11
from setuptools import Extension, setup
from setuptools.command.build_ext import build_ext

ROOT = Path(__file__).parent.resolve()


def wants_cuda() -> bool:
    choice = os.environ.get("WARPDRAW_CUDA", "auto")
    nvcc = shutil.which("nvcc")
    if choice == "auto":  # a short install unless the machine can run what a long one builds
        return bool(nvcc) and Path("/dev/nvidia0").exists()
    if choice not in ("on", "off"):
        sys.exit(f"WARPDRAW_CUDA: expected auto, on or off, got {choice!r}")
    if choice == "on" and not nvcc:
        sys.exit("WARPDRAW_CUDA=on needs nvcc on the PATH")
    return choice == "on"


class CMakeBuild(build_ext):
    def build_extension(self, ext: Extension) -> None:
        target = Path(self.get_ext_fullpath(ext.name)).resolve()
        # An editable install's module lies beside the sources, where `cmake --build` renews it.
        output = ROOT / "python" / "warpdraw" if self.editable_mode else target.parent
        build = ROOT / "build" / f"{sys.implementation.cache_tag}-{'debug' if self.debug else 'release'}"
        configure = [
            "cmake",
            "--fresh",  # an earlier build's cmake and ninja lived in an environment that pip has removed
            "-S",
            ROOT,
            "-B",
            build,
            "-G",
            "Ninja",
            f"-DCMAKE_BUILD_TYPE={'Debug' if self.debug else 'Release'}",
            f"-DCMAKE_LIBRARY_OUTPUT_DIRECTORY={output}",
            f"-DPython_EXECUTABLE={sys.executable}",
            f"-Dpybind11_DIR={pybind11.get_cmake_dir()}",
            f"-DWARPDRAW_CUDA={'ON' if wants_cuda() else 'OFF'}",
        ]
        subprocess.run([*configure, *os.environ.get("CMAKE_ARGS", "").split()], check=True)
        subprocess.run(["cmake", "--build", build], check=True)
        if self.editable_mode:
            target.parent.mkdir(parents=True, exist_ok=True)
            shutil.copy(output / target.name, target)


setup(ext_modules=[Extension("warpdraw._C", sources=[])], cmdclass={"build_ext": CMakeBuild})
