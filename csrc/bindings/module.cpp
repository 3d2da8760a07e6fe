// The Python module: importing it loads the library, which registers the ops. Its only function returns
// build information. It includes no torch header, which keeps compilation fast.
#include <pybind11/pybind11.h>

#include "../common/clones.h"

PYBIND11_MODULE(_C, m) {
  m.doc() = "Native ops of mmkgc; see mmkgc_cli.ops.";
  m.def(
      "build_info",
      [] {
        pybind11::dict info;
        info["version"] = MMKGC_VERSION;
        info["torch"] = MMKGC_TORCH_VERSION;
        info["cuda"] = MMKGC_CUDA_VERSION;
        info["compiler"] = __VERSION__;
        info["clones"] = MMKGC_CLONES_TEXT;
        info["sanitizers"] = MMKGC_SANITIZERS;
        info["emulated"] = MMKGC_EMULATED ? "yes" : "";
        return info;
      },
      "How this library was built (all str): version, torch, cuda, compiler, clones, sanitizers, "
      "emulated.");
}
