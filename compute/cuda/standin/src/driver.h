// What libcublasLt's stand-in uses of the driver's.
#pragma once
#include <functional>

#include "block.h"

#define STANDIN_EXPORT extern "C" __attribute__((visibility("default")))

// Puts work behind what the stream has been given, or records it in the stream's capture. name must outlive it.
// f returns 0 or an error code, which the device keeps.
STANDIN_EXPORT int standin_enqueue(void *stream, const char *name, std::function<int()> f);
// block.h's run_parallel and settings, for the other library.
STANDIN_EXPORT int standin_parallel(const char *what, int64_t n, void (*f)(void *, int64_t), void *context);
STANDIN_EXPORT long standin_workspace();
STANDIN_EXPORT long standin_capability();
STANDIN_EXPORT long standin_blas();
STANDIN_EXPORT long standin_epilogues();
