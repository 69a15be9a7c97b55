// Cut work over threads that live as long as the call: nothing to rebuild after a fork, nothing to stop at exit.
#pragma once

#include <atomic>
#include <functional>

namespace musicgen {

// Calls body(0) … body(parts - 1), the first in this thread, the others in new threads, and returns when all have
// returned. While it waits it calls `idle` every few milliseconds. The first exception is thrown again here.
void parallel(int parts, const std::function<void(int)>& body, const std::function<void()>& idle);

}  // namespace musicgen
