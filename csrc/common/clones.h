// MMKGC_CLONES compiles a leaf function once per instruction set; one is selected at load time.
// Only x86-64 ELF with glibc supports this; Arm, macOS and musl build the plain function.
#pragma once

#include <cstdint>  // brings in __GLIBC__

#if defined(__GLIBC__) && defined(__x86_64__) && defined(__ELF__) && defined(__GNUC__) && !defined(__clang__) && \
    __GNUC__ >= 12 && !defined(MMKGC_NO_CLONES)
#define MMKGC_CLONES __attribute__((target_clones("default", "arch=x86-64-v3", "arch=x86-64-v4")))
#define MMKGC_CLONES_TEXT "default, x86-64-v3, x86-64-v4"
#else
#define MMKGC_CLONES
#define MMKGC_CLONES_TEXT "none"
#endif

// A helper that must be inlined into each clone.
#define MMKGC_INLINE inline __attribute__((always_inline))

// For a loop around a vectorised inner loop: without it, GCC vectorises the outer loop with
// gathers, which is several times slower.
#define MMKGC_ONE_AT_A_TIME __asm__ volatile("")

// Before a short inner loop with a constant number of iterations: without it, GCC unrolls the loop
// before vectorisation and then does not vectorise it.
#if defined(__clang__)
#define MMKGC_NOT_UNROLLED
#else
#define MMKGC_NOT_UNROLLED _Pragma("GCC unroll 1")
#endif

// Before a loop with independent iterations.
#if defined(__clang__)
#define MMKGC_INDEPENDENT _Pragma("clang loop vectorize(assume_safety)")
#else
#define MMKGC_INDEPENDENT _Pragma("GCC ivdep")
#endif
