"""Build the native module with CMake, without torch. WARPDRAW_CUDA=auto|on|off says whether to build CUDA kernels."""

import os
import re
import shutil
import subprocess
import sys
from pathlib import Path

import pybind11
from setuptools import Extension, setup
from setuptools.command.build_ext import build_ext

ROOT = Path(__file__).parent.resolve()


OLDEST_NVCC = (12, 4)


def problem_with_nvcc() -> str:
    """Why the CUDA kernels cannot be compiled here, or nothing."""
    nvcc = os.environ.get("CUDACXX") or shutil.which("nvcc")
    if not nvcc:
        return "nvcc is not on the PATH: install the CUDA toolkit or set CUDACXX to its nvcc"
    try:
        told = subprocess.run([nvcc, "--version"], capture_output=True, text=True, check=True).stdout
    except (OSError, subprocess.CalledProcessError) as error:
        return f"{nvcc} does not run: {error}"
    version = re.search(r"release (\d+)\.(\d+)", told)
    if not version or (int(version[1]), int(version[2])) < OLDEST_NVCC:
        return f"{nvcc} is {version[0] if version else 'of an unknown release'}, 12.4 or later is needed"
    return ""


def wants_cuda() -> bool:
    choice = os.environ.get("WARPDRAW_CUDA", "auto")
    if choice not in ("auto", "on", "off"):
        sys.exit(f"WARPDRAW_CUDA: expected auto, on or off, got {choice!r}")
    # A short install unless the machine can run what a long one builds.
    if choice == "off" or (choice == "auto" and not Path("/dev/nvidia0").exists()):
        return False
    problem = problem_with_nvcc()
    if problem and choice == "on":
        sys.exit(f"WARPDRAW_CUDA=on: {problem}")
    if problem:
        print(f"warpdraw is built without its CUDA kernels, although there is a GPU: {problem}", file=sys.stderr)
    return not problem


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
